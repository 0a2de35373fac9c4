"""`minimind data images` on small packages with the real ones' layouts."""

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from minimind.data import image_build
from minimind.data.image_rows import read_examples
from minimind.data.reader import Rejects
from minimind.errors import FetchError
from minimind.vision.images import open_image

sys.path.append(str(Path(__file__).parents[1] / "data"))

from test_sources import deb

ICON = """var _default = (0, _runtime.IconWrapper)('apple', function (props) {
  return '<?xml version="1.0"?>' + '<svg width="' + props.size + '" viewBox="0 0 48 48">' +
    '<path d="M24 4V44" stroke="' + props.colors[0] + '" stroke-width="' + props.strokeWidth +
    '"/>' + '</svg>';
});"""


def picture(colour, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGBA", (12, 12), colour).save(buffer, kind)
    return buffer.getvalue()


def tgz(path, **members):
    with tarfile.open(path, "w:gz") as package:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            package.addfile(entry, io.BytesIO(data))
    return path


def emoji(label, hexcode, group, *tags):
    return {"label": label, "hexcode": hexcode, "group": group, "tags": list(tags)}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    labels = [
        emoji("苹果", "1F34E", 4, "水果", "红色", "apple"),
        emoji("厨师", "1F9D1-200D-1F373", 1, "烹饪"),
        emoji("男厨师", "1F468-200D-1F373", 1),
        emoji("男人", "1F468", 1), emoji("成人", "1F9D1", 1),
        emoji("旗: 中国", "1F1E8-1F1F3", 9),
        emoji("较浅肤色", "1F3FB", 2),
        {"label": "区域指标 A", "hexcode": "1F1E6"},
    ]  # fmt: skip
    names = {"main": {"zh": {"localeDisplayNames": {"territories": {"CN": "中国"}}}}}
    stamps = "./usr/share/tuxpaint/stamps/animals/frog"
    sentence = "A frog.\nzh_CN.UTF-8=一只青蛙。\nzh_TW.UTF-8=一隻青蛙。\n".encode()
    red = picture((200, 0, 0, 255))
    paths = {
        "emojibase": tgz(tmp_path / "e.tgz", **{"zh/data.json": labels}),
        "fluent": tgz(tmp_path / "f.tgz", **{
            f"assets/{code}.webp": picture((9, 9, 9, 0), "WEBP")
            for code in ("1f34e", "1f468-200d-1f373", "1f9d1-200d-1f373", "1f3fb", "1f1e6")
        }),
        "google": tgz(tmp_path / "g.tgz", **{
            "img/google/64/1f34e.png": red, "img/google/64/1f1e8-1f1f3.png": red,
            "img/google/sheets/64.png": red,
        }),
        "icons": tgz(tmp_path / "i.tgz", **{
            "icons.json": [{"name": "apple", "title": "苹果2", "categoryCN": "食品", "tag": ["果"]},
                           {"name": "a-cane", "title": "cane"}],
            "lib/icons/Apple.js": ICON.encode(), "lib/icons/ACane.js": ICON.encode(),
            "lib/icons/Nobody.js": ICON.encode(),
        }),
        "flags": tgz(tmp_path / "l.tgz", **{"png250px/cn.png": red, "png250px/eu-x.png": red}),
        "territories": tgz(tmp_path / "t.tgz", **{"main/zh/territories.json": names}),
        "stamps": deb(tmp_path / "s.deb", {
            f"{stamps}.png": red, f"{stamps}.txt": sentence, f"{stamps}_desc_fr.ogg": b"sound",
            "./usr/share/tuxpaint/stamps/animals/cat.png": red,
        }),
    }  # fmt: skip
    monkeypatch.setattr(image_build, "fetch_all", lambda sources, on_progress: paths)
    return paths


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_files_that_the_presets_read(packages, tmp_path):
    pytest.importorskip("resvg_py", reason="pip install 'minimind[vision]'")
    out = tmp_path / "images"
    entries = {entry.source: entry for entry in image_build.build_images(out)}
    captions = {(row["style"], row["caption"]): row for row in rows(out / "captions.jsonl")}
    assert set(captions) == {
        ("fluent", "苹果"), ("fluent", "男厨师"), ("fluent", "厨师"), ("icons", "苹果"),
        ("flags", "中国的旗帜"), ("stamps", "一只青蛙"),
    }  # fmt: skip
    assert captions["fluent", "苹果"]["concept"] == captions["icons", "苹果"]["concept"]
    assert captions["stamps", "一只青蛙"]["concept"] == "青蛙"
    unseen = {row["caption"]: row for row in rows(out / "google.jsonl")}
    assert set(unseen) == {"苹果", "中国的旗帜"}
    assert unseen["中国的旗帜"]["concept"] == captions["flags", "中国的旗帜"]["concept"]
    # Google's drawings are in no file that is trained on.
    assert {row["style"] for row in rows(out / "chat.jsonl")} == {
        "fluent", "icons", "flags", "stamps"
    }  # fmt: skip
    apple = [r for r in rows(out / "chat.jsonl") if r["image"] == "images/fluent/1f34e.webp"]
    assert [r["conversations"][1]["content"] for r in apple][-1] == "水果、红色"
    assert {e.documents for e in entries.values()} == {0, 1, 2, 3}
    assert entries["stamps"].licence == "GPL-2.0-or-later"

    for file in ("captions", "chat", "google"):
        rejects = Rejects()
        for example in read_examples([str(out / f"{file}.jsonl")], rejects):
            assert open_image(example.images[0]).image.mode == "RGB"
        assert not rejects.counts
    drawn = open_image(out / "images/icons/apple.png").image
    assert drawn.getpixel((112, 112)) == (0, 0, 0)  # the stroke of the path
    assert drawn.getpixel((4, 4)) == (255, 255, 255)


def test_a_package_that_cant_be_had_writes_nothing(tmp_path, monkeypatch):
    def fail(sources, on_progress):
        raise FetchError("no network")

    monkeypatch.setattr(image_build, "fetch_all", fail)
    with pytest.raises(FetchError):
        image_build.build_images(tmp_path / "images")
    assert not (tmp_path / "images").exists()
