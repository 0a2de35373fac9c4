"""Serve the page and one exported model on this machine: `python serve.py MODEL [--port 8000]`.

Any static server does, with the model in `model/` beside index.html. This one needs no copy of it,
and sends the two headers by which a browser allows WebAssembly to use several threads.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Handler(SimpleHTTPRequestHandler):
    """Files of this folder, and those of the model below /model/."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".jinja": "text/plain",
    }

    def __init__(self, *args: object, model: Path, quiet: bool = False, **kwargs: object) -> None:
        self.model, self.quiet = model, quiet
        super().__init__(*args, directory=str(HERE), **kwargs)  # type: ignore[arg-type]

    def translate_path(self, path: str) -> str:
        """Map /model/... to the exported directory."""
        inside = Path(super().translate_path(path))
        place = HERE / "model"
        return (
            str(self.model / inside.relative_to(place)) if place in inside.parents else str(inside)
        )

    def end_headers(self) -> None:
        """Isolate the page (threads), and let nothing stale be shown after a new export."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print requests unless told to be quiet."""
        if not self.quiet:
            super().log_message(format, *args)


def make_server(model: Path, *, port: int, quiet: bool = False) -> ThreadingHTTPServer:
    """Return a server on 127.0.0.1; port 0 takes a free one."""
    handler = functools.partial(Handler, model=model.resolve(), quiet=quiet)
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve the page and an exported model.")
    parser.add_argument("model", type=Path, nargs="?", default=HERE / "model")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    if not (args.model / "onnx").is_dir():
        parser.error(
            f"{args.model} has no folder onnx/: make it with "
            "`minimind export onnx CHECKPOINT OUT --dtype int8`"
        )
    if not (HERE / "vendor" / "transformers.min.js").exists():
        parser.error(f"run `npm ci && npm run vendor` in {HERE} first")
    with make_server(args.model, port=args.port) as server:
        print(f"http://127.0.0.1:{server.server_port}/   (Ctrl-C ends it)")  # noqa: T201
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
