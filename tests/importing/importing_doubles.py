"""Directories of tiny foreign models, written by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
CORPUS = [
    "the cat sat on the mat, 1234 times",
    "从前有一座山，山里有座庙",
    "def f(x): return x",
] * 8
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 128, "initializer_range": 0.2,
}  # fmt: skip


def byte_level_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE as SmolLM's: digits apart, control tokens among the first ids."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=control, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )  # fmt: skip
    theirs.chat_template = CHATML
    return theirs


def sentencepiece_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """BPE with byte fallback and `<s>` before every text, as Llama 2 and TinyLlama have."""
    from tokenizers import normalizers, processors

    alphabet = sorted({c for text in CORPUS[:1] for c in text.replace(" ", "▁")})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *alphabet]
    vocab = {token: number for number, token in enumerate(dict.fromkeys([*tokens, "▁t", "▁th"]))}
    merges = [("▁", "t"), ("▁t", "h")]
    backend = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        pad_token="</s>",
    )  # fmt: skip
    theirs.chat_template = ZEPHYR
    return theirs


def foreign_model(kind: str, vocab_size: int, **changes: Any) -> transformers.PreTrainedModel:
    """A random model of `qwen3`, `qwen2`, `llama` or `mistral` whose every part matters."""
    torch.manual_seed(1)
    name = {"qwen3": "Qwen3", "qwen2": "Qwen2", "llama": "Llama", "mistral": "Mistral"}[kind]
    config = getattr(transformers, f"{name}Config")(vocab_size=vocab_size, **(SHAPE | changes))
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                weight.normal_(std=0.3)
    return model


def write_foreign(
    directory: Path,
    kind: str,
    *,
    tokenizer: transformers.PreTrainedTokenizerFast | None = None,
    max_shard_size: str = "1GB",
    **changes: Any,
) -> transformers.PreTrainedModel:
    """Write a directory as `save_pretrained` does; return the model in it."""
    tokenizer = tokenizer or byte_level_tokenizer()
    model = foreign_model(kind, len(tokenizer) + 3, **changes)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(directory)
    return model
