"""`minimind export hf` of a model that sees: a LLaVA directory of transformers.

The encoder (CLIP or SigLIP), the projector and the language model are put together in
`LlavaForConditionalGeneration`, which transformers then writes itself, so names are its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from minimind.checkpoint import generation_config, hf_config
from minimind.data.images import encoder_folder, encoder_of
from minimind.errors import ExportError, require
from minimind.export.common import Check
from minimind.export.loading import Source
from minimind.model.vision import PROJECTOR
from minimind.tokenizer.chat import CHAT_TEMPLATE, IMAGE_FORMAT
from minimind.vision.encoder import pixels
from minimind.vision.huggingface import LAYER, HuggingFaceEncoder

BOUND = 1e-3
_CONTENT = "message.content + '<|im_end|>"
_SHOW = (
    "{%- macro show(content) %}{%- if content is string %}{{- content }}{%- else %}"
    "{%- for part in content %}{%- if part.type == 'image' %}{{- '" + IMAGE_FORMAT + "' }}"
    "{%- else %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}{%- endmacro %}\n"
)

VISION_TEMPLATE = _SHOW + CHAT_TEMPLATE.replace(_CONTENT, _CONTENT.replace(
    "message.content", "show(message.content)"
))  # fmt: skip
"""The chat template with images; transformers' processor repeats `<|image_pad|>` as needed."""


def check_source(source: Source) -> None:
    """Refuse what transformers has no LLaVA for.

    Raises:
        ExportError: the encoder is not CLIP or SigLIP, its grid was averaged, or it is a mixture.
    """
    vision = source.model.config.vision
    assert vision is not None
    if encoder_folder(vision) is None or vision.grid is not None:
        grid = f" averaged down to {vision.grid} x {vision.grid}" if vision.grid else ""
        raise ExportError(
            f"{source.directory}: its image encoder is {vision.encoder}{grid}, of which "
            "transformers has no LLaVA: train with a CLIP or SigLIP (--vision.encoder DIR, no "
            "grid). The language model alone is the checkpoint directory itself, which "
            "transformers loads as it is"
        )


def build(source: Source, *, dtype: torch.dtype) -> tuple[Any, HuggingFaceEncoder]:
    """Return transformers' LLaVA with our weights, and the encoder."""
    transformers: Any = require("transformers", extra="reference")
    vision, config = source.model.config.vision, source.model.config
    assert vision is not None
    encoder = encoder_of(vision)
    assert isinstance(encoder, HuggingFaceEncoder)
    values = hf_config(config, source.tokenizer)
    text = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    has_class_token = encoder.family == "clip_vision_model"
    llava = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            vision_config=encoder.model.config,
            text_config=text,
            image_token_index=vision.image_token_id,
            image_seq_length=vision.positions,
            projector_hidden_act="gelu",
            vision_feature_layer=LAYER,
            vision_feature_select_strategy="default" if has_class_token else "full",
            tie_word_embeddings=config.tie_word_embeddings,
        )
    )
    state = source.model.state_dict()
    language = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    projector = {k.removeprefix(PROJECTOR): v for k, v in state.items() if k.startswith(PROJECTOR)}
    llava.model.language_model.load_state_dict(language)
    llava.model.multi_modal_projector.load_state_dict(projector)
    llava.model.vision_tower.load_state_dict(encoder.model.state_dict())
    if config.tie_word_embeddings:
        llava.tie_weights()
    else:
        llava.lm_head.load_state_dict({"weight": state["lm_head.weight"]})
    return llava.eval().to(dtype), encoder


def write(source: Source, directory: Path, *, dtype: torch.dtype) -> int:
    """Write the directory; return how many numbers it holds."""
    llava, encoder = build(source, dtype=dtype)
    llava.save_pretrained(str(directory))
    source.tokenizer.save(directory)
    settings = directory / "tokenizer_config.json"
    values = json.loads(settings.read_text(encoding="utf-8"))
    _write(settings, values | {"image_token": "<|image_pad|>", "extra_special_tokens": {
        "image_token": "<|image_pad|>"}})  # fmt: skip
    (directory / "chat_template.jinja").write_text(VISION_TEMPLATE, encoding="utf-8")
    _write(directory / "generation_config.json", generation_config(source.tokenizer))
    has_class_token = encoder.family == "clip_vision_model"
    size = {"height": encoder.size, "width": encoder.size}
    _write(directory / "preprocessor_config.json", {
        "image_processor_type": "CLIPImageProcessor" if has_class_token else "SiglipImageProcessor",
        "do_resize": True, "size": size, "resample": 3, "do_center_crop": False,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": encoder.mean, "image_std": encoder.std, "do_convert_rgb": True,
    })  # fmt: skip
    _write(directory / "processor_config.json", {
        "processor_class": "LlavaProcessor", "image_token": "<|image_pad|>",
        "patch_size": encoder.model.config.patch_size,
        "num_additional_image_tokens": int(has_class_token),
        "vision_feature_select_strategy": "default" if has_class_token else "full",
    })  # fmt: skip
    return sum(parameter.numel() for parameter in llava.parameters())


@torch.no_grad()
def verify(source: Source, directory: Path) -> tuple[Check, ...]:
    """Load the directory as its users do; compare logits of a conversation with two images."""
    from PIL import Image

    transformers: Any = require("transformers", extra="reference")
    theirs, info = transformers.LlavaForConditionalGeneration.from_pretrained(
        str(directory), dtype=torch.float32, output_loading_info=True
    )
    problems = {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys}
    loaded = Check(
        name="weights", passed=not problems, figures={"weights": len(theirs.state_dict())},
        detail=f"transformers reports {problems}" if problems else "all found their place",
    )  # fmt: skip
    vision = source.model.config.vision
    assert vision is not None
    encoder = encoder_of(vision)
    assert isinstance(encoder, HuggingFaceEncoder)
    images = [Image.radial_gradient("L").convert("RGB"), Image.linear_gradient("L").convert("RGB")]
    shown = {"type": "image"}
    messages = [
        {"role": "user", "content": [shown, {"type": "text", "text": "这是什么？"}]},
        {"role": "assistant", "content": "一张图"},
        {"role": "user", "content": [{"type": "text", "text": "那么这张呢？"}, shown]},
    ]
    pad = [vision.image_token_id] * vision.positions
    ids = source.tokenizer.render(messages, add_generation_prompt=True, images=[pad, pad]).ids
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(directory))
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    text = text.replace("<|image_pad|>", "<|image_pad|>" * vision.positions)
    same = tokenizer.encode(text, add_special_tokens=False) == ids
    rendered = Check(name="chat template", passed=same, figures={"tokens": len(ids)},
                     detail=f"two images among words are the same {len(ids)} tokens")  # fmt: skip
    rounded, _ = build(source, dtype=getattr(torch, _stored_dtype(directory)))
    tower = rounded.model.vision_tower.state_dict()
    encoder.model.load_state_dict({name: tensor.float() for name, tensor in tower.items()})
    x_NChw = pixels(images, size=encoder.size, mean=encoder.mean, std=encoder.std)
    read = theirs.eval()(input_ids=torch.tensor([ids]), pixel_values=x_NChw).logits[0]
    ours = _with_weights(source, rounded)(
        torch.tensor([ids]), image_features=encoder.encode(images)[None]
    ).logits
    assert ours is not None
    largest = float((ours[0] - read).abs().max())
    logits = Check(name="logits", passed=largest <= BOUND, figures={"largest_difference": largest},
                   detail=f"largest difference {largest:.1e} over {len(ids)} tokens")  # fmt: skip
    return loaded, rendered, logits


def _with_weights(source: Source, rounded: Any) -> Any:
    """Return our model with the numbers that were written."""
    import copy

    model = copy.deepcopy(source.model).float()
    state = {f"model.{k}": v for k, v in rounded.model.language_model.state_dict().items()}
    eyes = rounded.model.multi_modal_projector.state_dict()
    state |= {f"{PROJECTOR}{k}": v for k, v in eyes.items()}
    if model.lm_head is not None:
        state["lm_head.weight"] = rounded.lm_head.weight
    model.load_state_dict({k: v.float() for k, v in state.items()})
    return model.eval()


def _stored_dtype(directory: Path) -> str:
    values = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return str(values.get("dtype", "float32"))


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
