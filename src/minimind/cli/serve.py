"""`minimind serve CHECKPOINT`: an OpenAI-compatible server."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from minimind.errors import ConfigError, require

if TYPE_CHECKING:
    from minimind.serve.loading import LoadSettings
    from minimind.serve.server import Server, ServeSettings

KEY_VARIABLE = "MINIMIND_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Args:
    """Serve checkpoints to OpenAI's clients: /v1/chat/completions, /v1/completions, /v1/models.

    The first signal (Ctrl-C, SIGTERM) lets running requests finish, the second doesn't wait.

    Attributes:
        models: CHECKPOINT or NAME=CHECKPOINT each: a run, a checkpoint directory, RUN:best, or a
            .gguf file. Without a name it is called as its run.
        adapter: NAME=DIRECTORY of a LoRA adapter, for a model that is served too. Repeatable.
        adapter_folder: each LoRA run or adapter in it is served by its folder's name; those that
            come later, as soon as models are listed or theirs is asked for.
        kit_prompt: conversations without a system prompt get that of the model's domain kit.
        backend: what generates: torch (ours), or llama.cpp for .gguf files.
        tokenizer: directory with the tokenizer of a .gguf file; its own vocabulary otherwise.
        host: the address to listen on; 0.0.0.0 lets others in.
        port: the port; 0 takes a free one.
        api_key_file: a file with one key a line that clients must send one of. The variable
            MINIMIND_API_KEY does the same for one key.
        slots: answers that run at once, for each model.
        queue: answers that wait for a slot, for each model; more get a 429.
        max_body: bytes of a request.
        request_timeout: seconds that a request may take, waiting included.
        drain_timeout: seconds that running requests get at the end.
        cors_origin: web pages from this origin may use the server. Repeatable; * is all.
        allowed_host: another name by which the server may be called. Repeatable. Only those and
            the loopback names are, while it listens on loopback without a key.
        device: auto takes a GPU where there is one.
        dtype: of the weights; auto keeps what was saved.
        threads: of llama.cpp; by default as many as there are cores.
        compile: torch on a CPU: 2-3 times the speed for an answer that runs alone. Ready about 20 s
            later for each model, and it needs a C++ compiler.
        log_requests: write a line for each request.
    """

    models: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]CHECKPOINT ...")
    ]
    adapter: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    adapter_folder: Path | None = None
    kit_prompt: bool = True
    backend: Literal["torch", "llama.cpp"] = "torch"
    tokenizer: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    api_key_file: Path | None = None
    slots: int = 8
    queue: int = 64
    max_body: int = 1 << 20
    request_timeout: float = 600.0
    drain_timeout: float = 30.0
    cors_origin: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    allowed_host: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | None = None
    compile: bool = False
    log_requests: bool = False


def read_keys(path: Path | None) -> tuple[str, ...]:
    """Return the keys of a file and of the environment.

    Raises:
        ConfigError: the file can't be read, or has no key; an empty file must not open the door.
    """
    keys = [key] if (key := os.environ.get(KEY_VARIABLE, "").strip()) else []
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--api-key-file {path}: {error}") from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise ConfigError(f"--api-key-file {path}: there is no key in it; write one a line")
        keys += found
    return tuple(keys)


def _check(args: Args) -> None:
    if not args.models:
        raise ConfigError("give at least one CHECKPOINT to serve")
    at_least = {"slots": 1, "queue": 0, "max_body": 1024, "drain_timeout": 0, "port": 0}
    for name, least in at_least.items():
        if getattr(args, name) < least:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {getattr(args, name)}: must be at least {least}")
    if args.port > 65535:
        raise ConfigError(f"--port {args.port}: must be at most 65535")
    if args.request_timeout <= 0:
        raise ConfigError(f"--request-timeout {args.request_timeout}: must be above 0")


def _settings(args: Args) -> ServeSettings:
    from minimind.serve.run import is_loopback
    from minimind.serve.server import ServeSettings

    keys = read_keys(args.api_key_file)
    hosts = None
    if is_loopback(args.host):
        # A page on the internet can point its own name at 127.0.0.1 and have a browser ask us.
        hosts = frozenset({"localhost", "127.0.0.1", "[::1]", args.host, *args.allowed_host})
    return ServeSettings(
        api_keys=keys,
        allowed_hosts=None if keys else hosts,
        cors_origins=args.cors_origin,
        max_body=args.max_body,
        request_timeout=args.request_timeout,
    )


def _load_settings(args: Args) -> LoadSettings:
    import torch

    from minimind.serve.loading import LoadSettings

    device = args.device
    if device == "auto":
        gpus = ("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())
        device = next((name for name, there in gpus if there), "cpu")
    return LoadSettings(
        backend=args.backend,
        device=device,
        dtype={"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype],
        slots=args.slots,
        queue=args.queue,
        threads=args.threads,
        tokenizer=args.tokenizer,
        compile=args.compile,
        kit_prompt=args.kit_prompt,
    )


def main(argv: list[str]) -> None:
    """Run `minimind serve`."""
    started = time.perf_counter()
    args = tyro.cli(Args, args=argv, prog="minimind serve")
    _check(args)
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, extra="serve")
    from minimind.serve.loading import name_models
    from minimind.serve.run import Listening, is_loopback, serve

    name_models(args.models, args.adapter)  # told before anything is loaded
    settings = _settings(args)
    if not is_loopback(args.host) and not settings.api_keys:
        print(
            f"warning: --host {args.host} without a key: whoever reaches this machine can use the "
            f"models. Set {KEY_VARIABLE}, or give --api-key-file.",
            file=sys.stderr,
        )

    def on_ready(server: Server) -> None:
        names = ", ".join(f"{model.id} ({model.backend.kind})" for model in server.registry)
        seconds = time.perf_counter() - started
        print(f"ready after {seconds:.1f} s: {names}", flush=True)

    serve(
        args.models,
        args.adapter,
        settings=settings,
        listening=Listening(
            host=args.host,
            port=args.port,
            drain=args.drain_timeout,
            log_level="info" if args.log_requests else "warning",
        ),
        loading=_load_settings(args),
        on_bound=lambda url: print(f"listening on {url} (base_url {url}/v1)", flush=True),
        on_ready=on_ready,
        adapter_folder=args.adapter_folder,
    )
