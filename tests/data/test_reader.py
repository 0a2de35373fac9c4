"""Broken input is reported with its place, kept, and never ends a run."""

import gzip
import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from minimind.data.formats import TextRow
from minimind.data.reader import Cursor, Rejects, expand_paths, read_lines, read_rows
from minimind.errors import DataError


def texts(path, kind="text", rejects=None):
    rows = read_rows(path, kind, rejects=rejects or Rejects())
    return [row.text for _, _, row in rows if isinstance(row, TextRow)]


def write(path, rows):
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if path.suffix == ".zst":
        data = zstandard.compress(data)
    elif path.suffix == ".gz":
        data = gzip.compress(data)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.jsonl.gz"])
def test_compressed_or_not_is_the_same(tmp_path, name):
    rows = [{"text": f"第{i}篇" * 400} for i in range(300)]
    assert texts(write(tmp_path / name, rows)) == [row["text"] for row in rows]


def test_text_file_has_a_document_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("一\n\n二", encoding="utf-8")
    assert texts(tmp_path / "a.txt") == ["一", "二"]


def test_zstd_frames_one_after_the_other(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(
        zstandard.compress('{"text": "一"}\n'.encode())
        + zstandard.compress('{"text": "二"}\n'.encode())
    )
    assert texts(path) == ["一", "二"]


def test_broken_lines_are_counted_kept_and_passed_over(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "\xe4\xb8\x80"}\n'
        b'{"text": "unclosed\n'
        b'{"text": "\xff\xfe"}\n'
        b"\n"
        b'{"txt": "x"}\n' + b"[" * 100_000 + b"\n"
        b'{"text": ""}\n'
        b'{"text": "\xe4\xba\x8c"}'
    )
    rejects = Rejects(tmp_path / "rejects.jsonl")
    assert texts(path, rejects=rejects) == ["一", "二"]
    kept = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert [row["line"] for row in kept] == [2, 3, 5, 6, 7]
    assert {row["file"] for row in kept} == {str(path)}
    assert kept[0]["raw"] == '{"text": "unclosed'
    assert "not JSON" in kept[0]["reason"]
    assert "not UTF-8" in kept[1]["reason"]
    assert "Did you mean 'text'" in kept[2]["reason"]
    assert rejects.total == 5
    assert f"{path}:2" in rejects.summary()


def test_a_second_pass_or_a_resumed_run_reports_nothing_twice(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "一"}\nbroken\n', encoding="utf-8")
    for _ in range(2):
        rejects = Rejects(tmp_path / "rejects.jsonl")
        texts(path, rejects=rejects)
        texts(path, rejects=rejects)
        assert rejects.total == 1
    assert len((tmp_path / "rejects.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".jsonl.gz"])
@pytest.mark.parametrize("share", [0.3, 0.99])
def test_cut_off_file_gives_what_it_has_and_is_reported(tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    rows = [{"text": json.dumps(list(range(i, i + 200)))} for i in range(2000)]
    write(path, rows)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    rejects = Rejects()
    read = texts(path, rejects=rejects)
    assert read == [row["text"] for row in rows[: len(read)]]
    assert len(read) > 2000 * share * 0.5
    assert rejects.total == 1
    assert "damaged or cut off" in rejects.first


def test_not_compressed_at_all_is_reported(tmp_path):
    (tmp_path / "a.jsonl.zst").write_text('{"text": "一"}\n', encoding="utf-8")
    rejects = Rejects()
    assert texts(tmp_path / "a.jsonl.zst", rejects=rejects) == []
    assert rejects.total == 1


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=9)))
def test_reading_on_from_any_line_gives_the_rest(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "a.txt.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    whole = list(read_lines(path, Cursor(), Rejects()))
    for i, (at, _) in enumerate(whole):
        assert list(read_lines(path, at, Rejects())) == whole[i:]


def test_paths_globs_and_folders(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.md"):
        (tmp_path / name).write_text("x")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "d.jsonl.zst").write_text("x")
    assert [p.name for p in expand_paths([str(tmp_path)])] == ["a.jsonl", "b.jsonl", "d.jsonl.zst"]
    assert [p.name for p in expand_paths([str(tmp_path / "?.jsonl")])] == ["a.jsonl", "b.jsonl"]
    twice = expand_paths([str(tmp_path / "b.jsonl"), str(tmp_path / "*.jsonl")])
    assert [p.name for p in twice] == ["b.jsonl", "a.jsonl"]


def test_missing_files_say_what_is_there(tmp_path):
    (tmp_path / "corpus.jsonl").write_text("x")
    with pytest.raises(DataError, match=r"corpus\.jsonl"):
        expand_paths([str(tmp_path / "corpos.jsonl")])
    with pytest.raises(DataError, match="matches no file"):
        expand_paths([str(tmp_path / "*.gz")])
    with pytest.raises(DataError, match=r"data\.train"):
        expand_paths([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no data file in it"):
        expand_paths([str(tmp_path / "empty")])
