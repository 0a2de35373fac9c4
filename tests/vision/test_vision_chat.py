"""`minimind chat --image` and `/image`, as they are typed."""

import io
import sys

import pytest
from vision_doubles import COLOURS, QUESTION

from minimind import cli


@pytest.fixture
def chat(capsys, monkeypatch):
    """Run `minimind chat` on some input; give (exit code, stdout, stderr)."""

    def run(model, text, *flags):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        try:
            code = cli.main(["chat", str(model), "--temperature", "0", *map(str, flags)])
        except SystemExit as exit_:
            code = exit_.code
        return code, *capsys.readouterr()

    return run


def test_pictures_of_the_flag_and_of_the_command(seeing, chat):
    folder = seeing.parent.parent / "pictures"
    for name in COLOURS:
        code, answer, _ = chat(seeing, f"{QUESTION}\n", "--image", folder / f"{name}0.png")
        assert (code, answer.strip()) == (0, name)
    typed = f"/image {folder}/gone.png\n/image {folder}/绿0.png\n{QUESTION}\n"
    code, answer, said = chat(seeing, typed)
    assert (code, answer.strip()) == (0, "绿")
    assert "gone.png can't be read" in said
    assert "绿0.png is shown with the next message" in said


def test_what_it_refuses(seeing, chat, tmp_path):
    picture = seeing.parent.parent / "pictures" / "红0.png"
    (tmp_path / "no.png").write_text("no image")
    for model, image, why in (
        (seeing, tmp_path / "no.png", "not an image of a known kind"),
        (seeing.parent.parent / "text", picture, "can't see images"),
    ):
        code, answer, said = chat(model, f"{QUESTION}\n", "--image", image)
        assert (code, answer) == (2, "")
        assert why in said
