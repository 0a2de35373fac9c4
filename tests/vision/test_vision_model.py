"""A model with eyes: what is read, what is learnt, what is saved."""

from dataclasses import replace

import pytest
import torch
import transformers
from vision_doubles import COLOURS, QUESTION, save_encoder, seeing_run

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.config import SightConfig
from minimind.data.images import vision_config
from minimind.errors import CheckpointError, ConfigError, DataError
from minimind.inference import Conversation, Engine
from minimind.inference.images import Eyes, look_at
from minimind.inference.sampling import SamplingParams
from minimind.model import CausalLM
from minimind.model.vision import open_eyes
from minimind.train.run import run
from minimind.vision.efficientnet import EfficientNetLite0
from minimind.vision.huggingface import HuggingFaceEncoder
from minimind.vision.images import open_image
from run_doubles import curve, run_directory

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=3, stop_ids=(2,))


@pytest.fixture(scope="module")
def eyed(tmp_path_factory):
    """A model of random weights with eyes, and its encoder's directory."""
    folder = save_encoder(tmp_path_factory.mktemp("encoder") / "siglip", "siglip")
    torch.manual_seed(0)
    model = CausalLM(tiny_config(max_position_embeddings=128))
    open_eyes(model, vision_config(SightConfig(encoder=str(folder))))
    return model.eval(), folder


def pictures(seeing):
    folder = seeing.parent.parent / "pictures"
    return {name: folder / f"{name}0.png" for name in COLOURS}


def test_the_network_has_the_published_size():
    network = EfficientNetLite0()
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    assert network.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 1280, 7, 7)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_features_are_those_that_llava_takes(family, tmp_path):
    folder = save_encoder(tmp_path / family, family)
    encoder = HuggingFaceEncoder(folder)
    image = open_image_of(tmp_path)
    kind = transformers.CLIPVisionModel if family == "clip" else transformers.SiglipVisionModel
    reference = kind.from_pretrained(folder).eval()
    from minimind.vision.encoder import pixels

    x_NChw = pixels([image], size=32, mean=encoder.mean, std=encoder.std)
    with torch.no_grad():
        hidden = reference(pixel_values=x_NChw, output_hidden_states=True).hidden_states[-2]
    expected = hidden[:, 1:] if family == "clip" else hidden
    torch.testing.assert_close(encoder.encode([image]), expected)
    assert expected.shape[1:] == (encoder.positions, encoder.feature_size) == (16, 32)


def open_image_of(folder):
    from vision_doubles import save_pictures

    return open_image(save_pictures(folder / "pictures")[0]).image


def test_training_and_generating_read_the_same(eyed):
    """Features in a batch, and ids beyond the vocabulary behind a cache in pieces: equal logits."""
    model, _ = eyed
    vision = model.config.vision
    torch.manual_seed(1)
    features_IPE = torch.randn(2, vision.positions, vision.feature_size)
    seen = [model.multi_modal_projector.see(f"{n:012x}", f) for n, f in enumerate(features_IPE)]
    pad = [vision.image_token_id] * vision.positions
    words = [70, 71, 72, 73]
    in_batch = [*words, *pad, *words, *pad, *words]
    beyond = [*words, *seen[0].ids, *words, *seen[1].ids, *words]
    with torch.no_grad():
        expected = model(torch.tensor([in_batch]), image_features=features_IPE[None]).logits
        from minimind.inference.decode import new_cache, prefill

        cache = new_cache(model, batch_size=1, max_length=128)
        for begin in range(0, len(beyond), 7):  # pieces end within images
            last = prefill(model, cache, [beyond[begin : begin + 7]])
    torch.testing.assert_close(last[0], expected[0, -1], atol=1e-5, rtol=1e-4)
    swapped = model(torch.tensor([in_batch]), image_features=features_IPE.flip(0)[None]).logits
    assert (swapped - expected)[0, -1].abs().max() > 1e-3


def test_two_images_share_no_prefix(eyed):
    """The same words with another picture: the cache of the first must not be taken."""
    model, _ = eyed
    vision = model.config.vision
    torch.manual_seed(2)
    seen = [
        model.multi_modal_projector.see(
            f"{n + 50:012x}", 3 * torch.randn(vision.positions, vision.feature_size)
        )
        for n in range(2)
    ]
    prompts = [[1, 9, *image.ids, 10, 80, 81, 82] for image in seen]
    params = SamplingParams(temperature=0.0, max_new_tokens=6)
    alone = [Engine(model).generate([prompt], params)[0] for prompt in prompts]
    one_row = Engine(model).complete([*prompts, prompts[0]], params, batch_rows=1)
    assert [done.ids for done in one_row] == [*alone, alone[0]]


def test_stage_one_trains_the_projector_alone_and_stage_two_all(tmp_path):
    encoder = save_encoder(tmp_path / "clip", "clip")
    first = seeing_run(tmp_path, encoder, name="align", steps=6, train="projector")
    aligned, _ = checkpoint.load(run(first).directory)
    text, _ = checkpoint.load(tmp_path / "text")
    for name, weight in text.state_dict().items():
        assert torch.equal(weight, aligned.state_dict()[name]), name
    losses = [line["loss"] for line in curve(run_directory(first)) if "loss" in line]
    assert losses[-1] < losses[0]

    second = seeing_run(tmp_path, encoder, name="chat", steps=2, train="all")
    start = replace(second.init, checkpoint=str(run_directory(first)))
    answered, _ = checkpoint.load(run(replace(second, init=start)).directory)
    changed = {n for n, w in answered.state_dict().items()
               if not torch.equal(w, aligned.state_dict()[n])}  # fmt: skip
    assert {"model.embed_tokens.weight", "multi_modal_projector.linear_1.weight"} <= changed


def learnt(directory):
    return [{k: v for k, v in line.items() if "wait" not in k} for line in curve(directory)]


def test_resume_is_exact(tmp_path):
    encoder = save_encoder(tmp_path / "siglip", "siglip")
    whole = seeing_run(tmp_path, encoder, name="whole", steps=10, train="projector")
    run(whole)
    short = replace(whole, name="short", train=replace(whole.train, steps=6))
    run(short)
    run(replace(short, train=replace(short.train, steps=10)), resume=True)
    assert learnt(run_directory(short)) == learnt(run_directory(whole))
    ends = [checkpoint.load(run_directory(config))[0].state_dict() for config in (short, whole)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])


def test_a_trained_model_tells_what_it_sees(seeing):
    model, tokenizer = checkpoint.load(seeing)
    for name, path in pictures(seeing).items():
        said = Conversation(model, tokenizer).reply(QUESTION, GREEDY, images=look_at(model, [path]))
        assert "".join(said) == name
    talk = Conversation(model, tokenizer)
    images = look_at(model, [pictures(seeing)["蓝"]])
    assert "".join(talk.reply(QUESTION, GREEDY, images=images)) == "蓝"
    assert list(talk.reply("再说一次", GREEDY))  # the image is still in the conversation
    assert talk.session.reused > model.config.vision.positions


def test_the_directory_is_a_language_model_to_transformers(seeing):
    directory = checkpoint.resolve(seeing)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    ours, _ = checkpoint.load(directory)
    ids = torch.randint(16, 200, (1, 12))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-4, rtol=1e-3)


def test_what_is_refused(seeing, tmp_path, eyed):
    blind = CausalLM(tiny_config())
    with pytest.raises(DataError, match="can't see images"):
        Eyes(blind)
    with pytest.raises(DataError, match="nobody holds"):
        Engine(eyed[0]).generate([[1, 1 << 62 | 77 << 12]], GREEDY)
    config = seeing_run(tmp_path, eyed[1], name="none", steps=1, train="all")
    with pytest.raises(ConfigError, match=r"no eyes: add \[vision\]"):
        run(replace(config, vision=None))
    with pytest.raises(CheckpointError, match="no image encoder there"):
        run(replace(config, vision=SightConfig(encoder=str(tmp_path))))
    with pytest.raises(ConfigError, match="can't be averaged"):
        run(replace(config, vision=SightConfig(encoder=str(eyed[1]), grid=4)))
    other = save_encoder(tmp_path / "other", "clip")
    vision = replace(eyed[0].config.vision, encoder=str(other))
    from minimind.data.images import encoder_of

    with pytest.raises(CheckpointError, match="put that encoder back"):
        encoder_of(vision)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match="not an image"):
        look_at(checkpoint.load(seeing)[0], [tmp_path / "text.png"])
    assert byte_tokenizer().vocab_size == blind.config.vocab_size


def test_rows_that_a_failed_start_rejected_are_forgotten(tmp_path):
    """Too many placeholders, then images that are gone: each start names its own rows."""
    encoder = save_encoder(tmp_path / "clip", "clip")
    config = seeing_run(tmp_path, encoder, name="bad", steps=1, train="projector")
    rows = tmp_path / "rows.jsonl"
    good = rows.read_text(encoding="utf-8")
    rows.write_text(good.replace("<image>", "<image><image>"), encoding="utf-8")
    with pytest.raises(DataError, match=r"4 rows.*\(4 x the messages have 2 <image>"):
        run(config)
    rows.write_text(good, encoding="utf-8")
    for name in COLOURS:
        (tmp_path / "pictures" / f"{name}0.png").unlink()
    with pytest.raises(DataError, match=r"4 rows could not be used \(4 x an image can't be used"):
        run(config)
