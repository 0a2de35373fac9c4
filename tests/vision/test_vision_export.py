"""A model with eyes as transformers' LLaVA: the export runs it and compares."""

import pytest
import torch
import transformers
from PIL import Image
from vision_doubles import COLOURS, QUESTION, save_encoder, seeing_run

from minimind import checkpoint
from minimind.errors import ExportError
from minimind.export.hf import export_hf
from minimind.inference.decode import new_cache, prefill
from minimind.inference.images import Eyes
from minimind.train.run import run
from minimind.vision.images import open_image


@pytest.mark.parametrize(("family", "dtype"), [("clip", "fp32"), ("siglip", "bf16")])
def test_llava_computes_what_we_do(family, dtype, tmp_path):
    encoder = save_encoder(tmp_path / family, family)
    config = seeing_run(tmp_path, encoder, name="see", steps=4, train="all")
    summary = export_hf(run(config).directory, tmp_path / "llava", dtype=dtype)
    assert [check.name for check in summary.checks] == ["weights", "chat template", "logits"]
    assert all(check.passed for check in summary.checks)
    assert {"config.json", "model.safetensors", "processor_config.json"} <= set(summary.files)


def test_other_formats_say_what_would_be_lost(seeing, tmp_path):
    from minimind.export.gguf import export_gguf

    with pytest.raises(ExportError, match="would lose its projector"):
        export_gguf(seeing, tmp_path / "a.gguf")
    assert torch.is_grad_enabled()


def test_transformers_own_processor_reads_a_picture_as_we_do(seeing, tmp_path):
    """The directory alone, used as transformers' manual says: its processor, its template."""
    summary = export_hf(seeing, tmp_path / "llava", dtype="fp32")
    processor = transformers.AutoProcessor.from_pretrained(summary.path)
    theirs = transformers.LlavaForConditionalGeneration.from_pretrained(summary.path).eval()
    model, tokenizer = checkpoint.load(seeing)
    eyes = Eyes(model)
    for name, rgb in COLOURS.items():
        Image.new("RGB", (32, 32), rgb).save(tmp_path / f"{name}.png")  # the encoder's own size
        shown = {"type": "image", "path": str(tmp_path / f"{name}.png")}
        talk = [{"role": "user", "content": [shown, {"type": "text", "text": QUESTION}]}]
        inputs = processor.apply_chat_template(
            talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        with torch.no_grad():
            expected = theirs(**inputs).logits[0, -1]
        seen = eyes.look(open_image(tmp_path / f"{name}.png"))
        ids = tokenizer.render(talk, add_generation_prompt=True, images=[seen.ids]).ids
        with torch.no_grad():
            cache = new_cache(model, batch_size=1, max_length=128)
            ours = prefill(model, cache, [ids])[0]
        torch.testing.assert_close(ours, expected, atol=2e-3, rtol=1e-3)  # ours: fp16 features
        answer = theirs.generate(**inputs, max_new_tokens=4, do_sample=False)
        said = processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert said == name
