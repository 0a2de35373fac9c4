"""Our models inside lm-evaluation-harness: `--model minimind --model_args pretrained=DIRECTORY`.

What a prompt's token ids are, where a continuation begins, what is cut and what an empty context
is replaced by follow lm-eval's own `hf` model to the letter, so that both give the same numbers for
one directory. What differs is the work: contexts that begin alike are read once, and logits are
computed only where something is asked.

lm-eval 0.4.13 and before know no plugins: `python -m minimind.eval` is `lm_eval` with the class
registered. The entry point `lm_eval.models` is for releases with its pull request 4013.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import tokenizers
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from minimind import checkpoint
from minimind.eval.subject import LineEncoder, ModelSubject, Options, load_subject
from minimind.eval.subject_generation import Decoding, decode_all
from minimind.eval.tasks.base import Generation
from minimind.inference.scoring import Precision
from minimind.tokenizer.template import ChatTemplate

_PRECISIONS: dict[str, Precision] = {
    "auto": "fp32", "float32": "fp32", "fp32": "fp32", "bfloat16": "bf16", "bf16": "bf16",
}  # fmt: skip
_LOG = logging.getLogger(__name__)


@register_model("minimind")
class MiniMindLM(TemplateLM):
    """A checkpoint of ours, a run, or any Hugging Face directory as an lm-eval model.

    Args:
        pretrained: the directory.
        device: a torch device.
        dtype: float32 (the weights too, whatever the directory has), bfloat16; auto is float32.
        batch_size: rows that generate side by side; likelihoods are batched by tokens.
        max_batch_size: as lm-eval passes it; unused.
        batch_tokens: slots of one forward pass.
        max_length: a context shorter than the model's own.
        max_gen_toks: tokens of an answer where a task says nothing.
        subject: a loaded one instead of `pretrained`.
    """

    def __init__(
        self,
        pretrained: str = "",
        *,
        device: str | None = "cpu",
        dtype: str = "auto",
        batch_size: int | str | None = 64,
        max_batch_size: int | None = None,
        batch_tokens: int = 8192,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        subject: ModelSubject | None = None,
    ) -> None:
        super().__init__()
        if dtype not in _PRECISIONS:
            raise ValueError(f"dtype={dtype}: one of {', '.join(_PRECISIONS)}")
        rows = int(str(batch_size)) if str(batch_size).isdigit() else 64
        options = Options(
            precision=_PRECISIONS[dtype], batch_tokens=int(batch_tokens), batch_rows=max(1, rows)
        )
        # lm-eval's command asks for cuda where nothing is said; its hf model falls back like this.
        there = torch.cuda.is_available() or not str(device).startswith("cuda")
        self._device = device if device and there else "cpu"
        self.subject = subject or load_subject(pretrained, device=self._device, options=options)
        self.max_length = int(max_length or self.subject.context_length)
        self.max_gen_toks = int(max_gen_toks)
        self.files = TokenizerFiles(checkpoint.resolve(pretrained), self.subject)
        self._whole = lru_cache(maxsize=1 << 14)(self.files.encode)

    @property
    def eot_token_id(self) -> int:
        """Return the id of the tokenizer's eos token."""
        return self.files.eos_id

    @property
    def prefix_token_id(self) -> int:
        """Return what stands for an empty context: bos, or eos where there is none."""
        return self.files.bos_id if self.files.bos_id is not None else self.files.eos_id

    @property
    def tokenizer_name(self) -> str:
        """Return what request caches know the tokenizer and its template by."""
        return f"minimind__{self.subject.tokenizer.fingerprint()}"

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Encode text as transformers does: special tokens that it spells are special."""
        return list(self._whole(string, add_special_tokens))

    def tok_decode(self, tokens: Sequence[int]) -> str:
        """Decode ids."""
        return self.subject.tokenizer.decode(tokens, skip_special_tokens=True)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render messages by the directory's template."""
        return self.files.render(chat_history, add_generation_prompt=add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the source of the template."""
        return self.files.template if chat_template else None

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        pairs = []
        cut = 0
        for _, context, continuation in requests:
            over = max(0, len(context) + len(continuation) - (self.max_length + 1))
            cut += over > 0
            pairs.append((context[over:], continuation))
        if cut:
            _LOG.warning("%d of %d prompts are longer than the context: cut at the left",
                         cut, len(requests))  # fmt: skip
        with tqdm(total=len(pairs), disable=disable_tqdm, desc="loglikelihood") as bar:
            scores = self.subject.score_ids(pairs, progress=bar.update)
        for (key, _, _), score in zip(requests, scores, strict=True):
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, score)
        return scores

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-likelihood of whole texts, in windows of the context."""
        pairs, owners = [], []
        for number, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]), prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length, context_len=1,
            )  # fmt: skip
            for window in map(make_disjoint_window, windows):
                pairs.append(window)
                owners.append(number)
        with tqdm(total=len(pairs), disable=disable_tqdm, desc="rolling") as bar:
            scores = self.subject.score_ids(pairs, progress=bar.update)
        totals = [0.0] * len(requests)
        for owner, (log_prob, _) in zip(owners, scores, strict=True):
            totals[owner] += log_prob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate an answer to every (context, settings); those with equal settings together."""
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            settings: Any = request.args
            groups.setdefault(json.dumps(settings[1], sort_keys=True), []).append(number)
        texts = [""] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="generate_until") as bar:
            for members in groups.values():
                self._generate(requests, members, texts, bar)
        return texts

    def _generate(
        self, requests: list[Instance], members: list[int], texts: list[str], bar: Any
    ) -> None:
        first: Any = requests[members[0]].args
        settings: dict[str, Any] = dict(normalize_gen_kwargs(first[1], self.max_gen_toks))
        until = handle_stop_sequences(settings.get("until"), eos=self.files.eos_token)
        wanted = int(settings["max_gen_toks"])
        if wanted >= self.max_length:
            _LOG.warning("max_gen_toks=%d leaves no room in a context of %d: half of it is used",
                         wanted, self.max_length)  # fmt: skip
            wanted = self.max_length // 2
        sampled = bool(settings.get("do_sample"))
        generation = Generation(
            max_new_tokens=wanted,
            stop=tuple(until),
            temperature=float(settings.get("temperature") or 1.0) if sampled else 0.0,
            top_p=float(settings.get("top_p", 1.0)),
        )
        room = self.max_length - wanted
        prompts = [self.tok_encode(requests[number].args[0])[-room:] for number in members]
        answers = decode_all(
            self.subject.model, self.subject.tokenizer, prompts,
            Decoding.of(generation, rows=self.subject.options.batch_rows),
            progress=bar.update,
        )  # fmt: skip
        for number, answer in zip(members, answers, strict=True):
            text = postprocess_generated_text(answer.text, stop=until, think_end_token=None)
            texts[number] = text
            self.cache_hook.add_partial("generate_until", requests[number].args, text)


class TokenizerFiles:
    """A directory's tokenizer as transformers reads it, with special tokens in text.

    Attributes:
        eos_token: the text of the eos token.
        eos_id: its id.
        bos_id: the id of the bos token that tokenizer_config.json names, or None.
        template: the source of the chat template, or None.
    """

    def __init__(self, directory: Path, subject: ModelSubject) -> None:
        """Read tokenizer.json, tokenizer_config.json and chat_template.jinja."""
        content = (directory / "tokenizer.json").read_text(encoding="utf-8")
        self._backend = tokenizers.Tokenizer.from_str(content)
        self._backend.no_truncation()
        self._backend.no_padding()
        self._adds_tokens = json.loads(content).get("post_processor") is not None
        path = directory / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        names = {key: _text(config.get(key)) for key in ("bos_token", "eos_token", "pad_token")}
        self.eos_token = names["eos_token"]
        eos = self._backend.token_to_id(self.eos_token) if self.eos_token else None
        self.eos_id = int(subject.tokenizer.stop_ids[0]) if eos is None else int(eos)
        bos = names["bos_token"]
        self.bos_id = self._backend.token_to_id(bos) if bos else None
        added = sorted((t["content"] for t in json.loads(content).get("added_tokens", [])),
                       key=len, reverse=True)  # fmt: skip
        self._special = re.compile("|".join(map(re.escape, added))) if added else None
        self._lines = LineEncoder(subject.tokenizer)
        template = directory / "chat_template.jinja"
        source = config.get("chat_template")
        self.template = template.read_text(encoding="utf-8") if template.exists() else source
        self._tokens = {key: text for key, text in names.items() if text}
        self._origin = str(directory)

    def encode(self, text: str, add_special_tokens: bool | None = None) -> list[int]:
        """Return the ids; those that the tokenizer puts around a text unless told otherwise."""
        bos = self._tokens.get("bos_token")
        add = not (bos and text.startswith(bos)) if add_special_tokens is None else (
            add_special_tokens
        )  # fmt: skip
        if self._lines.by_line and not (self._special and self._special.search(text)):
            return self._lines(text)
        return self._backend.encode(text, add_special_tokens=add and self._adds_tokens).ids

    def render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        """Return a conversation as text; without a generation prompt its last message stays open.

        Raises:
            ValueError: there is no template.
        """
        if not isinstance(self.template, str):
            raise ValueError(
                f"{self._origin} has no chat template: leave out --apply_chat_template"
            )
        template = ChatTemplate(self.template, tokens=self._tokens, origin=self._origin)
        text = template.render(messages, add_generation_prompt=add_generation_prompt)
        if add_generation_prompt:
            return text
        last = messages[-1]["content"].strip()
        return text[: text.rindex(last) + len(last)]


def _text(token: Any) -> str:
    """Return a token's text from tokenizer_config.json, where it may be an object."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
