"""`minimind chat CHECKPOINT`: talk to a checkpoint in the terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from minimind.cli.generate import ModelFlags, SamplingFlags
from minimind.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from minimind.inference import Conversation
    from minimind.model import CausalLM
    from minimind.model.vision import SeenImage
    from minimind.tokenizer import Tokenizer

HELP = """\
/reset             forget the conversation
/system TEXT       begin anew with this system message (without TEXT: show it)
/image FILE        show an image with the next message
/params            show how tokens are chosen; /params temperature 0.3 changes it
/exit              leave (or Ctrl-D); Ctrl-C stops an answer
"""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Talk to a checkpoint in the terminal, or pipe in one message a line.

    Attributes:
        checkpoint: a checkpoint directory, a run directory (its newest), or RUN:best.
        system: a system message.
        image: an image file that the first message shows. Repeatable; /image shows more.
    """

    checkpoint: tyro.conf.Positional[str]
    system: str | None = None
    image: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    sampling: Annotated[SamplingFlags, tyro.conf.arg(name="")] = field(
        default_factory=SamplingFlags
    )
    model: Annotated[ModelFlags, tyro.conf.arg(name="")] = field(default_factory=ModelFlags)


class Chat:
    """The loop: a line is a command or a message.

    Answers go to stdout; everything else to stderr, so that a pipe gets answers only.
    """

    def __init__(
        self, conversation: Conversation, flags: SamplingFlags, *, interactive: bool
    ) -> None:
        self.conversation, self.flags, self.interactive = conversation, flags, interactive
        self.stop_ids = tuple(conversation.tokenizer.stop_ids)
        self.out = Console(highlight=False)
        self.notes = Console(
            stderr=True, highlight=False, markup=False, soft_wrap=True, style="dim"
        )
        self.commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: self.notes.print(HELP, end=""),
            "/reset": self.reset,
            "/system": self.system,
            "/params": self.params,
            "/image": self.image,
        }
        self.images: list[SeenImage] = []

    def run(self) -> None:
        """Read lines until /exit or the end of the input."""
        while (line := self.read()) is not None:
            line = line.strip()
            command, _, rest = line.partition(" ")
            if command in {"/exit", "/quit"}:
                return
            try:
                if command in self.commands:
                    self.commands[command](rest.strip())
                elif command.startswith("/"):
                    near = did_you_mean(command, [*self.commands, "/exit"])
                    self.notes.print(f"there is no command {command}.{near} /help lists them")
                elif line:
                    self.answer(line)
            except UserError as error:
                self.notes.print(str(error), style="red")

    def read(self) -> str | None:
        """Return the next line, or None at the end."""
        if not self.interactive:
            return sys.stdin.readline() or None
        # Zero-width marks around the colour, else readline miscounts the prompt's width.
        prompt = "> " if self.out.no_color else "\001\033[1;36m\002> \001\033[0m\002"
        while True:
            try:
                return input(prompt)
            except EOFError:
                self.out.out("")
                return None
            except KeyboardInterrupt:
                self.notes.print("\n/exit or Ctrl-D leaves")

    def reset(self, _: str = "") -> None:
        """Forget the turns, keep the system message."""
        self.conversation.reset(system=self.conversation.system)
        self.notes.print("the conversation is empty")

    def system(self, text: str) -> None:
        """Begin anew with another system message, or show it."""
        if text:
            self.conversation.reset(system=text)
        self.notes.print(f"system: {self.conversation.system or '(none)'}")

    def image(self, path: str) -> None:
        """Show an image file with the next message."""
        from minimind.inference.images import look_at

        if not path:
            raise UserError("/image FILE: which image?")
        self.images += look_at(self.conversation.session.model, [path])
        self.notes.print(f"{path} is shown with the next message")

    def params(self, text: str) -> None:
        """Show or change the sampling parameters."""
        if not text:
            table = Table(show_header=False, box=None)
            for flag in fields(self.flags):
                table.add_row(flag.name, str(getattr(self.flags, flag.name)))
            self.notes.print(table)
            return
        name, _, value = text.replace("=", " ").partition(" ")
        name = name.lstrip("-").replace("-", "_")
        names = [flag.name for flag in fields(self.flags)]
        if name not in names:
            raise UserError(
                f"there is no parameter {name!r}.{did_you_mean(name, names)} "
                f"Parameters: {', '.join(names)}"
            )
        changed = replace(self.flags, **{name: _number(name, value.strip())})
        changed.params(stop_ids=self.stop_ids)  # its errors name the flag
        self.flags = changed
        self.notes.print(f"{name} = {getattr(changed, name)}")

    def answer(self, text: str) -> None:
        """Stream one answer; Ctrl-C ends it and keeps what was said."""
        conversation, started = self.conversation, time.perf_counter()
        shown, self.images = self.images, []
        params = self.flags.params(stop_ids=self.stop_ids)
        pieces = conversation.reply(text, params, images=shown)
        stopped, first = "", True
        try:
            for piece in pieces:
                if first and conversation.dropped:
                    self.notes.print(
                        f"(the context of {conversation.context:,} tokens is full: "
                        f"{conversation.dropped} old turns dropped)"
                    )
                first = False
                self.out.out(piece, end="")
                self.out.file.flush()
        except KeyboardInterrupt:
            stopped = "stopped, "
        finally:
            pieces.close()
        self.out.out("")
        if self.interactive:
            seconds = time.perf_counter() - started
            session = conversation.session
            reason = {"length": "cut at max_new_tokens, ", "context": "context full, "}
            self.notes.print(
                f"{stopped or reason.get(session.finish_reason or '', '')}{conversation.tokens} "
                f"tokens, {conversation.tokens / seconds:.0f} tokens/s, "
                f"{session.reused} prompt tokens from the cache"
            )


def _number(name: str, value: str) -> float | int | None:
    if name == "seed" and value.lower() in {"none", "random"}:
        return None
    kind = int if name in {"top_k", "max_new_tokens", "seed"} else float
    try:
        return kind(value)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise UserError(f"/params {name} {value!r}: give {wanted}") from error


def main(argv: list[str]) -> None:
    """Run `minimind chat`."""
    args = tyro.cli(Args, args=argv, prog="minimind chat")
    args.sampling.params(stop_ids=())  # wrong flags are told before the checkpoint is read
    model, tokenizer = args.model.load(args.checkpoint)
    talk(model, tokenizer, flags=args.sampling, system=args.system, images=args.image)


def talk(
    model: CausalLM,
    tokenizer: Tokenizer,
    *,
    flags: SamplingFlags | None = None,
    system: str | None = None,
    images: Sequence[Path] = (),
) -> None:
    """Open the chat with a loaded model; `images` are shown with the first message."""
    from minimind.inference import Conversation

    interactive = sys.stdin.isatty()
    chat = Chat(
        Conversation(model, tokenizer, system=system),
        flags or SamplingFlags(),
        interactive=interactive,
    )
    for path in images:
        chat.image(str(path))
    if interactive:
        with contextlib.suppress(ImportError):  # absent on Windows
            import readline  # noqa: F401  (importing it gives input() line editing and history)

        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        chat.notes.print(
            f"{parameters:.1f}M parameters, context {model.config.max_position_embeddings:,} "
            f"tokens. So small a model imitates form: its facts, sums and advice are often wrong. "
            f"/help for commands"
        )
    chat.run()
