# ruff: noqa: E501 - ruff counts a hanzi as two columns
"""A cleaning run: shards, duplicates across them, broken input, relaunch, look, Ray."""

import gzip
import io
import json
import random
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from minimind.cli import main
from minimind.data.cleaning.config import CleanConfig, Duplicates, Input, Lines
from minimind.data.cleaning.look import draw, page
from minimind.data.cleaning.run import clean_corpus
from minimind.data.cleaning.shards import Reading, plan, read_shard
from minimind.data.ledger import read_ledger
from minimind.errors import ConfigError, DataError
from minimind.settings import read_config

WORDS = "春天 河边 孩子 先生 屋子 马路 清晨 茶馆 报纸 院子 月亮 石头 木桥 朋友 邻居 旧书 大雨 灯火 车站 田野".split()  # noqa: SIM905
VERBS = "想起 看见 听说 走过 记得 忘了 喜欢 离开 等着 望着".split()  # noqa: SIM905


def prose(seed: int, sentences: int = 8) -> str:
    rng = random.Random(seed)
    return "".join(
        f"{rng.choice(WORDS)}里的{rng.choice(WORDS)}让我{rng.choice(VERBS)}了{rng.choice(WORDS)}，"
        f"{rng.choice(WORDS)}在{rng.randint(2, 99)}步外{rng.choice(VERBS)}{rng.choice(WORDS)}。"
        for _ in range(sentences)
    )


def write(path, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(zstandard.compress(text.encode()) if path.suffix == ".zst" else text.encode())
    return path


def config(tmp_path, *paths, out="out", **settings) -> CleanConfig:
    files = Input(paths=tuple(map(str, paths)), licences=("CC-BY-4.0",) * len(paths))
    return CleanConfig(**{"out": str(tmp_path / out), "workers": 1, "input": files} | settings)


def rows_of(folder) -> dict[str, list[dict]]:
    return {path.name: list(read_shard(path)) for path in sorted(folder.glob("*.zst"))}


def corpus(tmp_path):
    """Two files with duplicates across them, shared lines, personal data and spam."""
    shared = "本书由某某图书馆的志愿者录入并且校对完成"
    first = [{"text": f"{prose(n)}\n{shared}"} for n in range(12)]
    first.append({"text": f"{prose(50)}电话13812345678。"})
    second = [{"text": prose(3) + "\n" + shared}, {"text": prose(5, 8)[:-4] + "变了。"}]
    second += [{"text": prose(n), "license": "CC-BY-NC-4.0"} for n in (60, 61)]
    second += [{"text": "加微信领优惠券，全国包邮，货到付款。"}, {"text": prose(70)}]
    return write(tmp_path / "a.jsonl", first), write(tmp_path / "b.jsonl.zst", second)


def test_a_run_leaves_shards_rejects_edits_report_and_ledger(tmp_path):
    files = corpus(tmp_path)
    report = clean_corpus(config(tmp_path, *files))
    assert report["documents"] == 19
    assert dict(report["dropped"]) == {"licence": 2, "advertising": 1, "duplicate": 1,
                                       "near_duplicate": 1}  # fmt: skip
    assert report["documents_out"] == 14
    assert report["edits"]["pii: phone"] == 1
    assert report["edits"]["common_lines"] == 11  # it stays in the first of twelve
    kept = [row for rows in rows_of(tmp_path / "out" / "data").values() for row in rows]
    assert sum("志愿者录入" in row["text"] for row in kept) == 1
    assert not any("13812345678" in row["text"] for row in kept)
    dropped = [row for rows in rows_of(tmp_path / "out" / "rejects").values() for row in rows]
    assert len(kept) + len(dropped) == report["documents"]
    near = next(row for row in dropped if row["rule"] == "near_duplicate")
    assert near["id"] == "b.jsonl.zst:2"
    assert "a.jsonl:6" in near["reason"]
    ledger = read_ledger(tmp_path / "out")
    assert sum(entry.documents for entry in ledger) == 14
    assert {entry.licence for entry in ledger} == {"CC-BY-4.0"}
    assert not any("13812345678" in json.dumps(row) for rows in
                   rows_of(tmp_path / "out" / "edits").values() for row in rows)  # fmt: skip


def test_cleaning_the_clean_corpus_changes_nothing(tmp_path):
    files = corpus(tmp_path)
    clean_corpus(config(tmp_path, *files))
    once = rows_of(tmp_path / "out" / "data")
    paths = sorted((tmp_path / "out" / "data").glob("*.zst"))
    report = clean_corpus(config(tmp_path, *paths, out="again"))
    assert not report["dropped"]
    assert not report["edits"]
    again = rows_of(tmp_path / "again" / "data")
    assert [row["text"] for rows in once.values() for row in rows] == [
        row["text"] for rows in again.values() for row in rows
    ]


def test_two_processes_and_cut_files_give_the_same_documents(tmp_path, monkeypatch):
    files = corpus(tmp_path)
    clean_corpus(config(tmp_path, *files))
    report = clean_corpus(config(tmp_path, *files, out="two", workers=2))
    assert rows_of(tmp_path / "out" / "data") == rows_of(tmp_path / "two" / "data")
    assert report == json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    big = write(tmp_path / "big.jsonl", ({"text": prose(n, 60)} for n in range(450)))
    pieces = plan(Input(paths=(str(big),), shard_mb=1))
    assert len(pieces) > 1
    whole = clean_corpus(config(tmp_path, big, out="whole", lines=Lines(on=False)))
    cut = clean_corpus(config(tmp_path, out="cut", lines=Lines(on=False), input=Input(
        paths=(str(big),), licences=("CC-BY-4.0",), shard_mb=1)))  # fmt: skip
    assert cut["documents_out"] == whole["documents_out"]
    texts = [[row for rows in rows_of(tmp_path / name / "data").values() for row in rows]
             for name in ("whole", "cut")]  # fmt: skip
    assert texts[0] == texts[1]  # the ids, which hold line numbers, too


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    files = [write(tmp_path / f"{i}.jsonl", ({"text": prose(100 * i + n, 40)} for n in range(60)))
             for i in range(6)]  # fmt: skip
    out = tmp_path / "killed"
    command = ["data", "clean", "--input", *map(str, files),
               "--licence", "MIT", "--out", str(out), "--workers", "1"]  # fmt: skip
    # It waits to be killed in its third file: what is done is done, whenever the kill comes.
    waiting = """
import sys, time
from minimind import cli
from minimind.data.cleaning import executors
usual, calls = executors.run_pass, []
def run_pass(*arguments):
    calls.append(arguments)
    time.sleep(3600 if len(calls) > 2 else 0)
    usual(*arguments)
executors.run_pass = run_pass
sys.exit(cli.main(sys.argv[1:]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", waiting, *command],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    done = out / ".work" / "done"
    while len(list(done.glob("*.1.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in done.glob("*.1.json")}
    assert len(finished) == 2
    assert main(command) == 0
    assert all(path.stat().st_mtime_ns == at for path, at in finished.items())
    assert main([*command[:-4], "--out", str(tmp_path / "straight"), "--workers", "1"]) == 0
    assert rows_of(out / "data") == rows_of(tmp_path / "straight" / "data")
    assert not list(out.rglob(".*jsonl*"))


def test_broken_input_is_counted_and_nothing_is_lost(tmp_path):
    good = [{"text": prose(n, 30)} for n in range(40)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in good).encode()
    files = {
        "cut.jsonl.gz": gzip.compress(lines)[:-200],
        "cut.jsonl.zst": zstandard.compress(lines)[:-200],
        "empty.jsonl": b"",
        "mixed.jsonl": b"\n".join([
            json.dumps({"txet": "wrong field"}).encode(), b"not json", b'{"text": "\xff\xfe bad"}',
            json.dumps({"text": prose(900)}, ensure_ascii=False).encode("gb18030"),
            json.dumps({"text": ["a list"]}).encode(), json.dumps({"text": prose(901)}).encode(),
        ]),
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [prose(950)]}), sink)
    (tmp_path / "cut.parquet").write_bytes(sink.getvalue()[:-40])
    pq.write_table(pa.table({"text": [prose(951)]}), tmp_path / "good.parquet")
    with (tmp_path / "long.jsonl").open("wb") as file:
        file.write(b'{"text": "' + b"a" * (70 << 20) + b'"}\n' + json.dumps(good[0]).encode())
    report = clean_corpus(config(tmp_path, *sorted(p for p in tmp_path.iterdir()), duplicates=Duplicates(
        exact=False, near=False)))  # fmt: skip
    reasons = " | ".join(report["unusable"])
    for expected in ("compressed file is damaged", "Parquet file is damaged", "line is too long",
                     "not JSON", "not UTF-8", "no field for kind", "must be a string"):  # fmt: skip
        assert expected in reasons
    assert report["rescued"] == {"gb18030": 1}
    kept = [row for rows in rows_of(tmp_path / "out" / "data").values() for row in rows]
    texts = {row["text"] for row in kept}
    assert {prose(900), prose(901), prose(951), good[0]["text"]} <= texts
    unusable = [json.loads(line) for path in (tmp_path / "out" / "rejects").glob("*.jsonl")
                for line in path.read_text("utf-8").splitlines()]  # fmt: skip
    assert len(unusable) == sum(report["unusable"].values())
    assert any("Did you mean 'text'" in row["reason"] for row in unusable)
    assert sum(row["rule"] != "" for rows in rows_of(tmp_path / "out" / "rejects").values()
               for row in rows) + report["documents_out"] == report["documents"]  # fmt: skip


def test_settings_are_read_strictly_and_runs_do_not_mix(tmp_path, capsys):
    path = tmp_path / "clean.toml"
    path.write_text("[rules.length]\nminimun = 3\n", "utf-8")
    with pytest.raises(ConfigError, match=r"Did you mean 'rules.length.minimum'"):
        read_config(CleanConfig, path)
    path.write_text("[rules.length]\nminimum = 3\n[rules.seo]\non = false\n", "utf-8")
    read = read_config(CleanConfig, path)
    assert read.rules.length.minimum == 3
    assert "seo" not in [name for name, _ in read.rules.active()]
    files = corpus(tmp_path)
    clean_corpus(config(tmp_path, *files))
    with pytest.raises(DataError, match="other settings"):
        clean_corpus(config(tmp_path, *files, rules=read.rules))
    assert main(["data", "clean", "--input", str(tmp_path / "nothing.jsonl")]) == 2
    assert "nothing.jsonl is not there" in capsys.readouterr().err
    assert main(["data", "look", str(tmp_path / "nowhere")]) == 2


def test_look_shows_both_sides_and_marks_what_fired(tmp_path, capsys, monkeypatch):
    clean_corpus(config(tmp_path, *corpus(tmp_path)))
    samples = draw(tmp_path / "out", count=20)
    assert len(samples.kept) == 14
    assert {sample.rule for sample in samples.dropped} == {
        "licence", "advertising", "duplicate", "near_duplicate"}  # fmt: skip
    text = page(samples)
    assert "<mark>加微信</mark>" in text
    assert "<mark>[电话]</mark>" in text
    assert "src=" not in text
    assert "http" not in text.split("</style>")[0]
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["data", "look", str(tmp_path / "out"), "--rule", "advertising"]) == 0
    assert "advertising phrases" in capsys.readouterr().out
    with pytest.raises(DataError, match="Rules that dropped"):
        draw(tmp_path / "out", count=1, rules=("seo",))


@pytest.mark.slow
def test_two_ray_workers_give_the_output_of_local_processes(tmp_path):
    ray = pytest.importorskip("ray")
    files = corpus(tmp_path)
    local = clean_corpus(config(tmp_path, *files))
    try:
        spread = clean_corpus(config(tmp_path, *files, out="ray", executor="ray", workers=2))
    finally:
        ray.shutdown()
    assert spread == local
    assert rows_of(tmp_path / "ray" / "data") == rows_of(tmp_path / "out" / "data")
    assert rows_of(tmp_path / "ray" / "rejects") == rows_of(tmp_path / "out" / "rejects")


def test_a_line_of_megabytes_becomes_documents_with_names(tmp_path):
    (tmp_path / "one.txt").write_text("".join(chr(0x4E00 + n % 9000) for n in range(900_000)))
    (shard,) = plan(Input(paths=(str(tmp_path / "one.txt"),)))
    documents = list(Reading(shard, None, tmp_path / "rejects.jsonl"))
    assert [d.id for d in documents] == ["one.txt:1", "one.txt:1.1", "one.txt:1.2"]
    assert sum(len(d.text) for d in documents) == 900_000
