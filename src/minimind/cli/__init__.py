"""`minimind VERB ...`: finds the verb's module, runs it, turns errors into exit codes.

Nothing heavy is imported here, so that `minimind --help` answers at once. A verb is one module in
this package with a `main(argv)`, and one line in `VERBS`.
"""

from __future__ import annotations

import importlib
import keyword
import os
import sys

from minimind.errors import MiniMindError, did_you_mean

VERBS = {
    "quickstart": "from raw text to a chat with your own model, in minutes, on a CPU",
    "doctor": "check this machine, time real training steps, estimate time and cost",
    "params": "parameters, FLOPs per token and memory of a model preset",
    "tokenizer": "train | show | encode | report",
    "speedrun": "the same at full size on one GPU in a budget of time (two hours)",
    "data": "list | fetch | build | preview | preferences: licensed sources, rows for each stage",
    "train": "run a stage: pretrain, sft, dpo, lora, distill, or your own TOML",
    "chat": "talk to a checkpoint in the terminal",
    "generate": "complete one prompt, or a file of them",
    "report": "one page that tells a run's story; two runs compared; loss bands",
    "inspect": "a page that shows a model at work: odds, attention, logit lens, loops, two beside",
    "eval": "scores with intervals, chance lines, contamination; two checkpoints compared",
    "see": "what a model with eyes makes of held-out pictures: loss, one of four, a page",
    "export": "hf | gguf | onnx: for transformers, llama.cpp, Ollama, the browser; each verified",
    "quantize": "int8, int4, bitsandbytes: the weights in fewer bits, and what that costs",
    "serve": "an OpenAI-compatible server for checkpoints, adapters and GGUF files",
    "ui": "a chat page in the browser: its own server or another, each token with its odds",
    "import": "bring in another maker's model: Qwen3, Qwen2, Llama shapes; Hugging Face or GGUF",
}

TRAINS = {"train", "quickstart", "speedrun", "doctor"}
"""These run training steps, which huge pages make faster on a CPU."""

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_READER_GONE = 141
"""What a shell reports of a program that wrote to a closed pipe: `minimind ui --help | head`."""


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {summary}" for verb, summary in VERBS.items())
    return (
        "minimind: from raw Chinese text to a chat model that you trained yourself\n\n"
        f"usage: minimind VERB [...]        minimind VERB --help\n\n{verbs}\n\n"
        "start here: minimind quickstart"
    )


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 1 the work failed, 2 the input is wrong."""
    try:
        try:
            return _run(argv)
        finally:
            if sys.stdout:  # None where it was closed at the start: `>&-`, pythonw
                sys.stdout.flush()
    except BrokenPipeError:
        pass
    except SystemExit as stop:  # so rich ends a program whose reader is gone, with 1
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
    leave_reader()
    return EXIT_READER_GONE


def leave_reader() -> None:
    """Let what is still written go nowhere: nobody reads stdout any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(argv: list[str] | None) -> int:
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in {"-h", "--help", "help"}:
        print(_help())
        return EXIT_DONE
    if args[0] in {"-V", "--version"}:
        from importlib.metadata import version

        print(f"minimind {version('minimind')}")
        return EXIT_DONE
    verb, rest = args[0], args[1:]
    if verb not in VERBS:
        print(
            f"minimind: there is no verb {verb!r}.{did_you_mean(verb, VERBS)} "
            f"Verbs: {', '.join(VERBS)}",
            file=sys.stderr,
        )
        return EXIT_WRONG_INPUT
    try:
        name = f"{verb}_" if keyword.iskeyword(verb) else verb  # import_.py
        module = importlib.import_module(f"minimind.cli.{name}")
        return module.main(rest) or EXIT_DONE
    except MiniMindError as error:
        print(f"minimind {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"minimind {verb}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
