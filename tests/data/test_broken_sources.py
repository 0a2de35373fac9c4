"""Truncated, damaged, empty, enormous and misnamed: counted, reported, the rest read, no crash."""

import gzip
import io
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from minimind.cli import main
from minimind.data import lines as lines_module
from minimind.data.lines import Cursor
from minimind.data.reader import read_records, read_rows
from minimind.data.rejects import RAW_BYTES, Rejects
from minimind.errors import DataError

ROWS = [{"text": f"第{i}篇" + "文" * 30} for i in range(4_000)]
TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def usable(path, kind="text"):
    rejects = Rejects()
    return [row for _, _, row in read_rows(path, kind, rejects=rejects)], rejects


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_truncated_archive_gives_what_it_has_and_says_where_it_ends(tmp_path, pack):
    path = tmp_path / ("a.jsonl.gz" if pack is gzip.compress else "a.jsonl.zst")
    packed = pack(TEXT * 20)
    path.write_bytes(packed[: len(packed) * 9 // 10])
    rows, rejects = usable(path)
    assert len(rows) > 10_000 or path.suffix == ".zst"  # one zstd block may be all of it
    assert rejects.total == 1
    assert "damaged or cut off" in rejects.first


def test_a_truncated_parquet_is_one_rejection_and_a_damaged_group_costs_itself_only(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [row["text"] for row in ROWS]})
    pq.write_table(table, path, row_group_size=1_000, compression="gzip", use_dictionary=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    rows, rejects = usable(path)
    assert rows == []
    assert "Parquet file is damaged or cut off" in rejects.first
    path.write_bytes(whole)
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    path.write_bytes(whole[: at + 40] + bytes(200) + whole[at + 240 :])
    rows, rejects = usable(path)
    assert len(rows) == 3_000
    assert rows[0].text == ROWS[0]["text"]
    assert rows[-1].text == ROWS[-1]["text"]
    assert "row group is damaged" in rejects.first


def test_a_line_of_200_mb_costs_itself_and_no_memory(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(200):
            file.write("字".encode() * 350_000)
        file.write(b'"}\n{"text": "after"}\n')
    assert path.stat().st_size > 200e6
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from minimind.data.reader import read_rows; from minimind.data.rejects import Rejects\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "rejects = Rejects(Path(sys.argv[2]))\n"
        "rows = [r.text for _, _, r in read_rows(Path(sys.argv[1]), 'text', rejects=rejects)]\n"
        "print(rows, rejects.first[-60:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    kept = tmp_path / "rejects.jsonl"
    said = subprocess.run(
        [sys.executable, "-c", code, str(path), str(kept)], capture_output=True, text=True
    ).stdout.splitlines()
    assert said[0].startswith("['before', 'after']")
    assert "too long: 210 MB, above 64" in said[0]
    assert int(said[1]) < 250_000  # kB: the 64 MB that are tried, and their copies
    (rejected,) = map(json.loads, kept.open())
    assert rejected["line"] == 2
    assert len(rejected["raw"]) <= RAW_BYTES


def test_a_text_without_line_breaks_is_read_whole_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "PIECE_BYTES", 1_000)
    text = "长文字没有换行。" * 500
    path = tmp_path / "book.txt"
    path.write_text(text + "\n短的一行\n", encoding="utf-8")
    found = list(read_records(path, Cursor(), Rejects()))
    assert "".join(record["text"] for *_, record in found[:-1]) == text
    assert found[-1][2] == {"text": "短的一行"}
    assert [at.line for at, *_ in found] == [1] * (len(found) - 1) + [2]
    for number, (at, *_) in enumerate(found):
        rest = list(read_records(path, at, Rejects()))
        assert [record for *_, record in rest] == [record for *_, record in found[number:]]


def test_invalid_utf8_empty_files_and_wrong_fields(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "\xff\xfe"}\n' + TEXT[:2_000].rsplit(b"\n", 1)[0] + b"\n")
    rows, rejects = usable(path)
    assert len(rows) > 10
    assert "not UTF-8" in rejects.first
    path.write_bytes(b"")
    assert usable(path)[0] == []
    pq.write_table(pa.table({"txt": ["甲", "乙"]}), tmp_path / "b.parquet")
    rows, rejects = usable(tmp_path / "b.parquet")
    assert rows == []
    assert "Did you mean 'text'" in rejects.first


# ---------------------------------------------------------------- web pages

PAGE = """<html><head><title>标题</title><link rel="license" href="https://cc.example/by/4.0/">
</head><body><nav><a href="/">首页</a><a href="/b">论坛</a><a href="/c">登录</a></nav>
<article><h1>标题</h1>{}</article><footer>版权所有 联系我们</footer></body></html>"""
PARAGRAPH = "<p>这是正文的第{}段，讲的是山里的一条小路，怎样绕过村子，通到河边的老桥。</p>"


def warc(path, pages, *, gz=True):
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=gz)
        for number, page in enumerate(pages):
            headers = StatusAndHeaders(
                "200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1"
            )
            writer.write_record(
                writer.create_warc_record(
                    f"http://a.example/{number}", "response", payload=io.BytesIO(page),
                    http_headers=headers,
                )
            )  # fmt: skip


def test_warc_gives_the_main_text_the_address_and_the_licence_link(tmp_path):
    body = "".join(PARAGRAPH.format(i) for i in range(8))
    gbk = PAGE.replace("<head>", '<head><meta charset="gbk">').format(body).encode("gbk")
    pages = [PAGE.format(body).encode(), b"<html><body></body></html>", gbk]
    for gz in (True, False):
        path = tmp_path / ("a.warc.gz" if gz else "a.warc")
        warc(path, pages, gz=gz)
        rejects = Rejects()
        found = list(read_records(path, Cursor(), rejects))
        assert [record["url"] for *_, record in found] == [
            "http://a.example/0",
            "http://a.example/2",
        ]
        for *_, record in found:
            assert "第7段，讲的是山里的一条小路" in record["text"]
            assert "登录" not in record["text"]
            assert "版权所有" not in record["text"]
            assert record["licence"] == "https://cc.example/by/4.0/"
        assert rejects.counts == {"no main text found in the page": 1}
        again = list(read_records(path, found[1][0], Rejects()))
        assert [record for *_, record in again] == [found[1][2]]
    whole = (tmp_path / "a.warc").read_bytes()
    (tmp_path / "a.warc").write_bytes(whole[:-300])
    rejects = Rejects()
    assert len(list(read_records(tmp_path / "a.warc", Cursor(), rejects))) == 1
    assert "cut off" in json.dumps(list(rejects.counts))


# ---------------------------------------------------------------- verbs


def test_stats_counts_copies_characters_and_tokens(tmp_path, capsys):
    rows = [{"text": "你好，world 123"}] * 3 + [{"text": "别的"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "broken\n")
    assert main(["data", "stats", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["documents"], found["hanzi"], found["copies"]) == (4, 8, 2)
    assert found["classes"] == {"hanzi": 8, "Chinese punctuation": 3, "Latin letters": 15,
                                "digits": 9, "white space": 3}  # fmt: skip
    assert found["characters"]["longest"] == 12
    assert found["tokens"]["total"] > 10
    assert found["repeated"] == [[3, "你好，world 123"]]
    assert found["rejected"] == {"not JSON": 1}
    assert main(["data", "stats", str(path)]) == 0
    assert "documents that are there most often" in capsys.readouterr().out


def test_the_hub_list_names_licences_and_a_slice_of_a_folder_is_written(tmp_path, capsys):
    assert main(["data", "list", "--hub", "--json"]) == 0
    entries = {e["name"]: e for e in map(json.loads, capsys.readouterr().out.splitlines())}
    assert entries["fineweb-edu-zh"]["open"]
    assert not entries["belle-1m"]["open"]
    assert not entries["firefly"]["open"]
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(TEXT)
    out = tmp_path / "slice.jsonl.zst"
    assert main(["data", "fetch", f"hub:{folder}", "--out", str(out), "--mb", "0.05"]) == 0
    rows, rejects = usable(out)
    assert 300 < len(rows) < 700
    assert rejects.total == 0
    assert main(["data", "fetch", f"hub:{folder}"]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["data", "preview", f"hub:{folder}", "--rows", "1"]) == 0
    assert "learnt" in capsys.readouterr().out


# ---------------------------------------------------------------- kills

KILLED = """
import hashlib, sys, pickle
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from doubles import byte_tokenizer
from minimind.config import DataConfig
from minimind.data import make_loader, stream
stream.MIN_WINDOW_BYTES = 50_000
state, out = Path(sys.argv[2] + "/state"), Path(sys.argv[2] + "/out")
workers = int(sys.argv[4])
config = DataConfig(train=(sys.argv[1],), sequence_length=64, shuffle_mb=0, epochs_limit=2,
                    num_workers=workers, cache=sys.argv[2] + "/tokens")
loader = make_loader(config, byte_tokenizer(), batch_rows=8, micro_batch_rows=8, seed=1)
done = 0
if state.exists():
    done, saved = pickle.loads(state.read_bytes())
    loader.load_state_dict(saved)
    out.write_text("".join(line + "\\n" for line in out.read_text().splitlines()[:done]))
with out.open("a") as file:
    for step in loader:
        digest = hashlib.sha256(step[0].input_ids.numpy().tobytes()).hexdigest()
        print(digest, file=file, flush=True)
        done += 1
        if done % 5 == 0:
            part = state.with_name("part")
            part.write_bytes(pickle.dumps((done, loader.state_dict())))
            part.replace(state)
print("finished")
"""


@pytest.mark.slow
def test_killed_at_random_twelve_times_the_batches_are_the_same(tmp_path):
    data = tmp_path / "a.jsonl.gz"
    data.write_bytes(gzip.compress(TEXT * 2))
    chance = random.Random(4)
    folder = str(Path(__file__).parent.parent)

    def start(where, workers):
        where.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, str(data), str(where), folder, str(workers)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    whole = start(tmp_path / "whole", 0)
    assert whole.communicate()[0] == "finished\n"
    killed = 0
    out = tmp_path / "killed" / "out"
    while True:
        one = start(tmp_path / "killed", chance.choice([0, 1, 2]))
        before = out.stat().st_size if out.exists() else 0
        while one.poll() is None and (not out.exists() or out.stat().st_size == before):
            time.sleep(0.02)
        time.sleep(chance.random())
        if killed < 12 and one.poll() is None:
            one.send_signal(signal.SIGKILL)
            one.wait()
            killed += 1
            continue
        assert one.communicate()[0] == "finished\n"
        break
    assert killed > 0
    assert out.read_text() == (tmp_path / "whole" / "out").read_text()


def test_nothing_but_damage_is_an_error_that_says_so(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 not really")
    from doubles import byte_tokenizer
    from minimind.config import DataConfig
    from minimind.data import make_loader

    config = DataConfig(train=(str(path),), validation_share=0.0)
    loader = make_loader(config, byte_tokenizer(), batch_rows=1, micro_batch_rows=1, seed=0)
    with pytest.raises(DataError, match="Parquet file is damaged"):
        next(iter(loader))
