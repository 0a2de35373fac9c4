"""The same batches from every kind of source, any number of workers, with the cache and without."""

import contextlib
import gzip
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard

from doubles import byte_tokenizer
from minimind.config import DataConfig
from minimind.data import cache as cache_module
from minimind.data import hub as hub_module
from minimind.data import make_loader
from minimind.data import stream as stream_module
from minimind.data.cache import token_cache
from minimind.data.files import mixture
from minimind.data.formats import TextRow
from minimind.data.hub import HubData
from minimind.data.lines import Cursor
from minimind.data.rejects import Rejects
from minimind.data.stream import MixedStream
from minimind.data.windows import Selection
from minimind.errors import ConfigError, DataError, FetchError

TOKENIZER = byte_tokenizer()
CHANCE = random.Random(5)
TEXTS = [f"第{i}篇。" + "文字" * CHANCE.randrange(40) for i in range(300)]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(stream_module, "MIN_WINDOW_BYTES", 6_000)


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def written(folder, suffix):
    """The texts as a file, or for `hub` as a folder, of one kind."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"text": text} for text in TEXTS]
    path = folder / f"a.{suffix}"
    if suffix == "jsonl":
        path.write_bytes(jsonl(rows))
    elif suffix == "jsonl.gz":
        path.write_bytes(gzip.compress(jsonl(rows)))
    elif suffix == "jsonl.zst":
        half = len(rows) // 2
        parts = [jsonl(rows[:half]), jsonl(rows[half:])]  # two frames
        path.write_bytes(b"".join(map(zstandard.ZstdCompressor().compress, parts)))
    elif suffix == "txt":
        path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    elif suffix == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": TEXTS}), path, row_group_size=70)
    elif suffix == "hub":
        path.mkdir()
        for number in range(3):
            part = rows[number * 100 : (number + 1) * 100]
            (path / f"part-{number}.jsonl").write_bytes(jsonl(part))
        return f"hub:{path}"
    return str(path)


def config_of(*paths, **changes):
    given: dict[str, Any] = {
        "sequence_length": 64, "shuffle_mb": 0, "epochs_limit": 2, "cache": "off",
        "validation_share": 0.0,
    }  # fmt: skip
    return DataConfig(train=tuple(map(str, paths)), **(given | changes))


def loader_of(config, **changes):
    given: dict[str, Any] = {"batch_rows": 4, "micro_batch_rows": 4, "seed": 3} | changes
    return make_loader(config, TOKENIZER, **given)


def steps_of(loader):
    return [[(b.input_ids.tolist(), b.labels.tolist()) for b in step] for step in loader]


KINDS = ["jsonl", "jsonl.gz", "jsonl.zst", "txt", "parquet", "hub"]


@pytest.mark.parametrize("suffix", KINDS)
def test_every_kind_of_source_gives_all_texts_and_resumes_exactly(tmp_path, suffix):
    config = config_of(written(tmp_path, suffix), epochs_limit=1)
    loader, whole, states = loader_of(config), [], []
    for step in loader:
        whole.append([b.input_ids.tolist() for b in step])
        states.append(pickle.loads(pickle.dumps(loader.state_dict())))
    ids = [i for step in whole for batch in step for row in batch for i in row]
    assert sorted(TOKENIZER.decode(ids).strip("\n").split("<|endoftext|>"))[-300:] == sorted(TEXTS)
    assert loader.counts["documents"] == 300
    for at in (0, len(whole) // 2, len(whole) - 2):
        resumed = loader_of(config)
        resumed.load_state_dict(states[at])
        assert [[b.input_ids.tolist() for b in step] for step in resumed] == whole[at + 1 :]


def chats(folder):
    folder.mkdir(exist_ok=True)
    rows = [
        {"messages": [{"role": "user", "content": f"问题{i}"},
                      {"role": "assistant", "content": "答" * (1 + i % 50)}]}
        for i in range(400)
    ]  # fmt: skip
    rows[7]["messages"][0]["content"] = "问" * 300  # nothing to learn within the row
    (folder / "chat.jsonl").write_bytes(jsonl(rows) + b'{"messages": "broken"}\n')
    pairs = [
        {"prompt": f"问{i}", "chosen": "好" * (1 + i % 9), "rejected": "坏"} for i in range(300)
    ]
    (folder / "pairs.jsonl").write_bytes(jsonl(pairs))


@pytest.mark.parametrize("kind", ["text", "chat", "preference"])
def test_workers_change_nothing_also_across_a_resume(tmp_path, kind):
    chats(tmp_path / "c")
    names = {"chat": "c/chat.jsonl", "preference": "c/pairs.jsonl"}
    path = tmp_path / names[kind] if kind in names else written(tmp_path, "jsonl")
    config = config_of(path, kind=kind, sequence_length=128)
    alone = loader_of(config, rejects=tmp_path / "alone.jsonl")
    whole = steps_of(alone)
    several = loader_of(replace(config, num_workers=2), rejects=tmp_path / "several.jsonl")
    got = []
    for step in several:
        got.append([(b.input_ids.tolist(), b.labels.tolist()) for b in step])
        if len(got) == len(whole) // 2:
            break
    state = several.state_dict()
    assert got == whole[: len(got)]
    for workers in (0, 1):
        resumed = loader_of(replace(config, num_workers=workers))
        resumed.load_state_dict(state)
        assert steps_of(resumed) == whole[len(got) :]
        assert resumed.counts == alone.counts
    if kind == "chat":
        assert alone.counts["rejects"] == 2  # one row, in each of two passes
        lines = [json.loads(line)["line"] for line in (tmp_path / "alone.jsonl").open()]
        assert sorted(lines) == [8, 401]


def test_a_killed_worker_is_replaced(tmp_path):
    config = config_of(written(tmp_path, "jsonl"), num_workers=1, epochs_limit=6)
    whole = steps_of(loader_of(replace(config, num_workers=0)))
    got = []
    for step in loader_of(config):
        got.append([(b.input_ids.tolist(), b.labels.tolist()) for b in step])
        if len(got) == 2:
            for worker in _children():
                os.kill(worker, signal.SIGKILL)
    assert got == whole


def _children():
    """Process ids of this process's workers."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    ).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "minimind.data.workers" in line]


def test_workers_end_with_a_killed_parent(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from minimind.config import DataConfig; from minimind.data.workers import Workers\n"
        "from doubles import byte_tokenizer; import time\n"
        "w = Workers(1, DataConfig(), byte_tokenizer())\n"
        "print(w._all[0].pid, flush=True); time.sleep(60)\n"
    )
    folder = str(Path(__file__).parent.parent)
    parent = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(3_000):  # it notices when it has done importing
        with contextlib.suppress(FileNotFoundError):
            state = Path(f"/proc/{worker}/stat").read_text().split(")")[1].split()[0]
            if state != "Z":
                time.sleep(0.1)
                continue
        return
    raise AssertionError(f"worker {worker} is still there")


@pytest.mark.parametrize(("kind", "workers"), [("text", 0), ("preference", 0), ("chat", 1)])
def test_the_cache_changes_nothing_and_the_next_epoch_reads_it(tmp_path, kind, workers):
    chats(tmp_path / "c")
    names = {"chat": "c/chat.jsonl", "preference": "c/pairs.jsonl"}
    path = tmp_path / names[kind] if kind in names else written(tmp_path, "parquet")
    plain = config_of(path, kind=kind, sequence_length=128, epochs_limit=3)
    kept = replace(plain, cache=str(tmp_path / "tokens"), num_workers=workers)
    whole = steps_of(loader_of(plain, rejects=tmp_path / "plain.jsonl"))
    assert steps_of(loader_of(kept)) == whole
    shards = list((tmp_path / "tokens").glob("*/*/facts.json"))
    assert len(shards) > 1
    # Another run reads nothing but the cache, and reports the same rejections.
    again = loader_of(kept, rejects=tmp_path / "again.jsonl")
    assert steps_of(again) == whole
    reasons = [
        sorted((r["line"], r["reason"]) for r in map(json.loads, file.open()))
        for name in ("plain", "again") if (file := tmp_path / f"{name}.jsonl").exists()
    ]  # fmt: skip
    assert reasons == [] or reasons[0] == reasons[1]
    assert all(drawn.item is not None for drawn in drawn_of(kept))
    # In the middle of a pass, the state of one fits the other.
    loader = loader_of(kept)
    for number, _ in enumerate(loader):
        if number == 5:
            break
    resumed = loader_of(plain)
    resumed.load_state_dict(loader.state_dict())
    assert steps_of(resumed) == whole[6:]


def drawn_of(config):
    cache = token_cache(config, TOKENIZER, "train", rank=0)
    stream = MixedStream(
        mixture(replace(config, epochs_limit=1), "train"),
        Selection(config.kind, "train", config.validation_share),
        seed=3, window_mb=0, rejects=Rejects(), cache=cache,
    )  # fmt: skip
    return list(stream)


def test_only_whole_shards_of_the_same_data_are_used(tmp_path):
    path = Path(written(tmp_path, "jsonl"))
    config = config_of(path, cache=str(tmp_path / "tokens"), epochs_limit=1)
    whole = steps_of(loader_of(config))
    assert all(drawn.item is not None for drawn in drawn_of(config))
    # A damaged shard is thrown away and its window encoded again.
    (shard,) = [p.parent for p in (tmp_path / "tokens").glob("*/*/data.bin")][:1]
    data = bytearray((shard / "data.bin").read_bytes())
    data[10] ^= 255
    (shard / "data.bin").write_bytes(data)
    assert steps_of(loader_of(config)) == whole
    # An interrupted pass leaves whole shards or none; a half-written one is not used.
    other = replace(config, cache=str(tmp_path / "other"))
    steps = iter(loader_of(other))
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert not list((tmp_path / "other").glob("*/.part-*"))
    for shard in (tmp_path / "tokens").glob("*/*"):
        half = tmp_path / "other" / shard.parent.name / shard.name
        half.mkdir(exist_ok=True)
        (half / "data.bin").write_bytes((shard / "data.bin").read_bytes()[:-1])
    assert steps_of(loader_of(other)) == whole
    assert steps_of(loader_of(other)) == whole
    # Other text, other split, other tokenizer: other shards.
    path.write_bytes(path.read_bytes().replace("文字".encode(), "文章".encode()))
    assert all(drawn.item is None for drawn in drawn_of(config))
    assert all(drawn.item is None for drawn in drawn_of(replace(config, validation_share=0.2)))


def test_the_cache_keeps_within_its_limit_and_leaves_small_sources_alone(tmp_path, monkeypatch):
    config = config_of(written(tmp_path, "jsonl"), cache=str(tmp_path / "tokens"), cache_gb=0.0)
    assert len(steps_of(loader_of(config))) > 10
    assert not list((tmp_path / "tokens").glob("*/*/data.bin"))
    monkeypatch.setenv("MINIMIND_CACHE", str(tmp_path / "home"))
    assert len(steps_of(loader_of(replace(config, cache="auto", cache_gb=1.0)))) > 10
    assert not list((tmp_path / "home").glob("tokens/*/*"))  # below AUTO_BYTES
    monkeypatch.setattr(cache_module, "AUTO_BYTES", 1)
    steps_of(loader_of(replace(config, cache="auto", cache_gb=1.0)))
    assert list((tmp_path / "home").glob("tokens/*/*/data.bin"))


# ---------------------------------------------------------------- mixtures


def two_sources(folder):
    folder.mkdir(exist_ok=True)
    for name, rows in (("many", 400), ("few", 50)):
        texts = [{"text": f"{name}{i}" + "字" * 20} for i in range(rows)]
        (folder / f"{name}.jsonl").write_bytes(jsonl(texts))
    return folder / "many.jsonl", folder / "few.jsonl"


def names_of(config, limit=10**9):
    stream = MixedStream(
        mixture(config, "train"), Selection("text", "train", 0.0), seed=1, window_mb=0,
        rejects=Rejects(),
    )  # fmt: skip
    drawn = [drawn.row for drawn, _ in zip(stream, range(limit), strict=False)]
    rows = [row.text[:3] for row in drawn if isinstance(row, TextRow)]
    return ["many" if name == "man" else "few" for name in rows]


def test_temperature_flattens_the_shares(tmp_path):
    config = config_of(*two_sources(tmp_path), epochs_limit=None)
    by_size = names_of(config, 900).count("few") / 900
    flat = names_of(replace(config, temperature=1e9), 900).count("few") / 900
    middle = names_of(replace(config, temperature=2.0), 900).count("few") / 900
    assert abs(by_size - 50 / 450) < 0.02
    assert abs(middle - 50**0.5 / (50**0.5 + 400**0.5)) < 0.02
    assert abs(flat - 0.5) < 0.02


def test_a_source_gives_no_more_than_its_cap_of_passes(tmp_path):
    config = config_of(*two_sources(tmp_path), epochs_limit=None, weights=(0.5, 0.5))
    names = names_of(replace(config, epochs_caps=(2, 3)))
    assert (names.count("many"), names.count("few")) == (800, 150)
    assert names[200:400].count("few") < 80  # it was used up early; the other went on
    assert names_of(replace(config, epochs_caps=(0, 1)), 2_000).count("few") == 50


def test_a_curriculum_changes_the_weights_on_the_way_and_resumes(tmp_path):
    paths = two_sources(tmp_path)
    size = sum(path.stat().st_size for path in paths)
    after = size / 2 / 1e6
    config = config_of(*paths, epochs_limit=None, weights=(0.9, 0.1),
                       curriculum=(f"{after}:0,1", f"{2 * after}:0.5,0.5"))  # fmt: skip
    names = names_of(config, 700)
    assert abs(names[:200].count("few") - 20) < 5
    assert names[240:440].count("few") == 200
    assert abs(names[470:].count("few") / len(names[470:]) - 0.5) < 0.05
    loader, whole, states = loader_of(config), [], []
    for step in loader:
        whole.append([b.input_ids.tolist() for b in step])
        states.append(loader.state_dict())
        if len(whole) == 120:
            break
    for at in (30, 60, 90):
        resumed = loader_of(config)
        resumed.load_state_dict(states[at])
        rest = [[b.input_ids.tolist() for b in step] for step, _ in
                zip(resumed, range(120 - at - 1), strict=False)]  # fmt: skip
        assert rest == whole[at + 1 :]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs_caps": (1,)}, r"data\.epochs_caps has 1 numbers, data\.train has 2"),
        ({"curriculum": ("100",)}, r"AFTER_MB:WEIGHT"),
        ({"curriculum": ("5:1,2,3",)}, "give one weight a path"),
        ({"temperature": 0.0}, r"data\.temperature = 0\.0"),
        ({"num_workers": -1}, r"data\.num_workers = -1"),
    ],
)
def test_mixtures_that_contradict(tmp_path, changes, says):
    with pytest.raises(ConfigError, match=says):
        loader_of(config_of(*two_sources(tmp_path), **changes))


# ---------------------------------------------------------------- stalls and licences


class Stalling:
    """Rows of a hub data set whose network fails twice on the way."""

    fails = 2

    def __init__(self, start=0):
        self.at = start

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]

    def __iter__(self):
        for number in range(self.at, 2_500):
            if number == 1_700 and Stalling.fails:
                Stalling.fails -= 1
                raise ConnectionError("connection reset by peer")
            self.at = number + 1
            yield {"text": f"第{number}行"}


class StallingData(HubData):
    def open(self):
        return Stalling()


def test_a_stall_is_retried_from_the_same_row_and_told(monkeypatch, caplog):
    monkeypatch.setattr(hub_module, "FIRST_WAIT_SECONDS", 0.01)
    Stalling.fails = 2
    with caplog.at_level(logging.WARNING, logger="minimind.data"):
        rows = [(at.offset, row["text"]) for at, _, row in
                StallingData("a/b").read(Cursor(), Rejects())]  # fmt: skip
    assert rows == [(i, f"第{i}行") for i in range(2_500)]
    assert [record.message[:46] for record in caplog.records] == [
        "hub:a/b::train stalls (connection reset by pee"
    ] * 2
    Stalling.fails = 10**9
    with pytest.raises(FetchError, match="continue with --resume"):
        list(StallingData("a/b", retry_seconds=0.05).read(Cursor(), Rejects()))


def test_waiting_for_data_is_counted(tmp_path):
    loader = loader_of(config_of(written(tmp_path, "jsonl"), epochs_limit=1))
    began = time.perf_counter()
    steps_of(loader)
    assert 0 < loader.wait_seconds < time.perf_counter() - began


def test_licences_that_are_not_open_need_to_be_accepted():
    with pytest.raises(ConfigError, match=r"'research only'.*--data\.accept-licences 'research"):
        mixture(config_of("hub:belle-1m"), "train")
    with pytest.raises(ConfigError, match=r"its card was not read"):
        mixture(config_of("hub:firefly"), "train")


HUB_CODE = """
import sys
from minimind.config import DataConfig
from minimind.data.files import mixture
from minimind.errors import MiniMindError
try:
    config = DataConfig(train=(sys.argv[1],), retry_seconds=3, accept_licences=("unknown",))
    mixture(config, "train")
except MiniMindError as error:
    print(type(error).__name__, error)
"""


def asked(name, **environment):
    answer = subprocess.run(
        [sys.executable, "-c", HUB_CODE, name], capture_output=True, text=True, timeout=300,
        env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
    )  # fmt: skip
    return answer.stdout


def test_no_hub_no_network_no_such_data_set():
    import http.server
    import threading

    offline = asked("hub:nobody/nothing", HF_HUB_OFFLINE="1")
    assert offline.startswith("FetchError hub:nobody/nothing")
    assert "HF_HUB_OFFLINE is set" in offline
    closed = asked("hub:nobody/nothing", HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9")
    assert closed.startswith("FetchError")
    assert "can't be reached" in closed

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("X-Error-Message", "Repository not found")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        absent = asked("hub:opencsg/chinese-fineweb-edv", HF_HUB_OFFLINE="0", HF_ENDPOINT=endpoint)
    finally:
        server.shutdown()
    assert absent.startswith("DataError there is no data set 'opencsg/chinese-fineweb-edv'")
    assert "Did you mean 'opencsg/chinese-fineweb-edu'" in absent


def test_a_local_folder_is_a_hub_data_set_and_must_have_the_split(tmp_path):
    name = written(tmp_path, "hub")
    with pytest.raises(DataError, match="validation"):
        steps_of(loader_of(config_of(f"{name}::validation")))
    assert torch.is_tensor(next(iter(loader_of(config_of(name))))[0].input_ids)
