"""From what the command line names to models that serve: checkpoints, GGUF files, LoRA adapters.

An adapter is merged into copies of the matrices that it changes; every other tensor is its base's
own. So a token costs what a token of the base costs, the results are those of the merged model that
an export would give, and the memory is that of the changed matrices.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from minimind import checkpoint
from minimind.errors import CheckpointError, ConfigError
from minimind.inference.backend import Backend
from minimind.serve.registry import Registry, Served
from minimind.serve.scoring import Scorer, TorchScorer
from minimind.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from minimind.inference.images import Eyes
    from minimind.model import CausalLM

BackendKind = Literal["torch", "llama.cpp"]


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """How models run.

    Attributes:
        backend: what generates. A .gguf file always runs in llama.cpp.
        device: of the torch backend.
        dtype: of its weights; None keeps what was saved.
        slots: answers that run at once, in each model.
        queue: answers that wait, in each model.
        threads: of llama.cpp; None: as many as there are cores.
        tokenizer: directory with the tokenizer of .gguf files; None: the file's own vocabulary.
        compile: of the torch backend: the step of an answer that runs alone (`model.compiled`).
        kit_prompt: the system prompt of a checkpoint's kit.json opens conversations without one.
    """

    backend: BackendKind = "torch"
    device: str = "cpu"
    dtype: torch.dtype | None = None
    slots: int = 8
    queue: int = 64
    threads: int | None = None
    tokenizer: str | None = None
    compile: bool = False
    kit_prompt: bool = True


def split_name(given: str) -> tuple[str, str]:
    """Return (name, path) of `NAME=PATH` or `PATH`; a path's own name is that of its run."""
    name, sign, path = given.partition("=")
    if sign and name and not Path(given).exists() and not re.search(r"[/\\]", name):
        return name, path
    place = Path(given.removesuffix(":best")).absolute()
    if place.suffix == ".gguf":
        return place.stem, given
    if re.fullmatch(r"step-\d+", place.name) and place.parent.name == "checkpoints":
        place = place.parent.parent
    return place.name, given


def name_models(models: Sequence[str], adapters: Sequence[str]) -> dict[str, str]:
    """Return paths by name, models first.

    Raises:
        ConfigError: two have the same name, or an adapter has none.
    """
    for adapter in adapters:
        if "=" not in adapter:
            raise ConfigError(f"--adapter {adapter}: give it a name: --adapter NAME={adapter}")
    named: dict[str, str] = {}
    for name, path in map(split_name, (*models, *adapters)):
        if name in named:
            raise ConfigError(
                f"{named[name]} and {path} would both be called {name!r}: name one, NAME={path}"
            )
        named[name] = path
    return named


class Loader:
    """Loads the models of a server."""

    def __init__(self, settings: LoadSettings) -> None:
        self._settings = settings
        self._bases: dict[str, tuple[Path, CausalLM, Tokenizer]] = {}
        self._served: dict[str, Served] = {}

    def load(self, models: Sequence[str], adapters: Sequence[str]) -> Registry:
        """Load everything.

        Raises:
            CheckpointError, ConfigError: with the path and what to do. What was loaded is closed.
        """
        named = name_models(models, adapters)
        try:
            for number, (name, path) in enumerate(named.items()):
                if number >= len(models):
                    self._served[name] = self.load_adapter(name, path)
                elif path.endswith(".gguf"):
                    self._served[name] = self._gguf(name, Path(path))
                else:
                    self._served[name] = self._checkpoint(name, path)
        except BaseException:
            Registry(self._served).close()
            raise
        return Registry(self._served)

    def _checkpoint(self, name: str, path: str) -> Served:
        if self._settings.backend != "torch":
            raise ConfigError(
                f"--backend {self._settings.backend} runs .gguf files, {path} is a checkpoint: "
                "export it first, or leave --backend out"
            )
        directory = checkpoint.resolve(path)
        model, tokenizer = checkpoint.load(
            directory, device=self._settings.device, dtype=self._settings.dtype
        )
        if (directory / "adapter_config.json").exists():
            _merge(model)
        self._bases[name] = directory, model, tokenizer
        return self._torch(name, model, tokenizer, directory)

    def _torch(
        self,
        name: str,
        model: CausalLM,
        tokenizer: Tokenizer,
        directory: Path,
        *,
        parent: str | None = None,
    ) -> Served:
        from minimind.inference.batching import TorchBackend
        from minimind.inference.decode import compile_decoding
        from minimind.inference.images import Eyes

        model.eval().requires_grad_(False)
        if self._settings.compile:
            compile_decoding(model)
        backend = TorchBackend(model, slots=self._settings.slots, queue_limit=self._settings.queue)
        identity = f"{checkpoint.fingerprint(directory)} {self._settings.dtype}"
        eyes = Eyes(model) if model.config.vision is not None else None
        return _served(
            name, backend, tokenizer, TorchScorer(model), identity, directory, parent=parent,
            eyes=eyes, system=self._system(directory),
        )  # fmt: skip

    def _system(self, directory: Path) -> str:
        card = checkpoint.read_card(directory) if self._settings.kit_prompt else None
        return "" if card is None else card.system

    def load_adapter(self, name: str, path: str) -> Served:
        """Return one more adapter, merged into a copy of what it changes of its loaded base.

        Raises:
            CheckpointError, ConfigError: it is damaged, or of a base that isn't served.
        """
        directory = checkpoint.resolve(path)
        parent = self._parent(directory)
        _, base, tokenizer = self._bases[parent]
        model = merged_copy(base, directory, device=self._settings.device)
        if (directory / "tokenizer.json").exists():
            tokenizer = Tokenizer.load(directory)
        return self._torch(name, model, tokenizer, directory, parent=parent)

    def _parent(self, directory: Path) -> str:
        """Return the served model that an adapter belongs to."""
        if not (directory / "adapter_config.json").exists():
            raise CheckpointError(
                f"--adapter {directory}: there is no adapter_config.json; a whole model is served "
                "without --adapter"
            )
        record = directory / "base.json"  # which of ours it was trained on
        if not record.exists() and len(self._bases) == 1:
            return next(iter(self._bases))  # peft's own: shapes are checked when it is merged
        wanted = checkpoint.fingerprint(checkpoint.base_of(directory))
        for name, (place, _, _) in self._bases.items():
            if checkpoint.fingerprint(place) == wanted:
                return name
        served = ", ".join(f"{place} ({name})" for name, (place, _, _) in self._bases.items())
        raise CheckpointError(
            f"--adapter {directory}: it was trained on {checkpoint.base_of(directory)}, which is "
            f"not among the models served: {served or 'none'}. Serve that checkpoint too"
        )

    def _gguf(self, name: str, path: Path) -> Served:
        from minimind.serve.gguf import tokenizer_of
        from minimind.serve.llamacpp import LlamaCppBackend

        if not path.is_file():
            raise CheckpointError(f"{path}: there is no such file")
        given = self._settings.tokenizer
        tokenizer = Tokenizer.load(given) if given else tokenizer_of(path)
        backend = LlamaCppBackend(
            path,
            slots=self._settings.slots,
            queue_limit=self._settings.queue,
            threads=self._settings.threads,
        )
        with path.open("rb") as file:
            identity = hashlib.file_digest(file, "sha256").hexdigest()
        return _served(name, backend, tokenizer, None, identity, path)


def merged_copy(base: CausalLM, directory: Path, *, device: str) -> CausalLM:
    """Return the base with an adapter merged in; tensors that it doesn't change are shared.

    Raises:
        CheckpointError: the adapter is of another base or rank.
        ConfigError: it targets layers that the model doesn't have, or the base is quantised.
    """
    import torch

    from minimind.checkpoint.store import ADAPTER, read_json, read_tensors
    from minimind.model import (
        CausalLM,
        inject_lora,
        load_lora_state_dict,
        lora_config_from_adapter,
    )

    if base.quantization is not None:
        raise ConfigError(
            f"--adapter {directory}: its base is quantised ({base.quantization.method}), and an "
            "adapter is merged into plain weights: serve the checkpoint that was quantised"
        )
    config = lora_config_from_adapter(read_json(directory / "adapter_config.json"))
    with torch.device("meta"):
        model = CausalLM(base.config)
    changed = {f"{target}.weight" for target in config.target_modules}
    state = {
        name: tensor.clone() if ".".join(name.split(".")[-2:]) in changed else tensor
        for name, tensor in base.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    inject_lora(model, config)
    load_lora_state_dict(model, read_tensors(directory / ADAPTER, device=device))
    _merge(model)
    return model


def _merge(model: CausalLM) -> None:
    from minimind.model import merge_lora

    merge_lora(model)


def _served(
    name: str,
    backend: Backend,
    tokenizer: Tokenizer,
    scorer: Scorer | None,
    identity: str,
    path: Path,
    *,
    parent: str | None = None,
    eyes: Eyes | None = None,
    system: str = "",
) -> Served:
    from importlib.metadata import version

    what = f"{identity} {backend.kind} {version('minimind')} {tokenizer.fingerprint()}"
    return Served(
        id=name,
        backend=backend,
        tokenizer=tokenizer,
        scorer=scorer,
        fingerprint="fp_" + hashlib.sha256(what.encode()).hexdigest()[:12],
        created=int(path.stat().st_mtime),
        longest_token=max(len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)),
        parent=parent,
        eyes=eyes,
        system=system,
    )
