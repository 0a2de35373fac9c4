"""The table of `minimind eval`: whole words in 80 columns, and what happened while asking."""

import pytest

from minimind.cli.eval_table import show
from minimind.eval.comparison import compare
from minimind.eval.harness import Asked, Scored
from minimind.eval.tasks import maker_of
from minimind.eval.tasks.base import Outcome, TaskOptions, measure_of


@pytest.fixture
def printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    task = maker_of("cmmlu")(TaskOptions())
    metric = task.metrics[0]

    def scored(right):
        outcomes = [
            Outcome(item=str(i), value=float(i < right), details={f"chose_{'AB'[i % 2]}": 1.0})
            for i in range(200)
        ]
        measure = measure_of(metric, outcomes)
        return Scored(metric=metric, outcomes=outcomes, measure=measure, clean=measure)

    ours, theirs = scored(54), scored(120)
    difference = compare(metric, theirs.outcomes, ours.outcomes, seed=0)
    show(
        [Asked(task, ours.outcomes, total=11582)],
        {"4.7M": [ours], "SmolLM2-135M": [theirs]},
        {"SmolLM2-135M": {metric.name: difference}},
        cited_tasks=["cmmlu"],
        parameters={"4.7M": 4_721_408, "SmolLM2-135M": 134_515_008},
    )
    return capsys.readouterr().out


def test_no_word_is_broken_in_80_columns(printed):
    assert max(map(len, printed.splitlines())) <= 80
    for word in ("SmolLM2-135M", "distinguishable", "TinyLlama-1.1B", "21.3-33.5 %", "(cited)"):
        assert word in printed
    assert printed.count("unseen") == 2


def test_what_happened_is_said_below_the_table(printed):
    assert "200 of 11,582" in printed
    assert "4.7M: chose A 100, B 100" in printed
    text = " ".join(printed.split())
    assert "SmolLM2-135M - 4.7M: +33.0 points (+26.5 to +40.0), a real difference" in text
    assert "McNemar exact, 200 questions; 66 and 0 right alone" in text
