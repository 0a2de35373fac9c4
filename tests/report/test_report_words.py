"""Names of figures in words, and pictures of runs that logged one line."""

import re

import pytest

from minimind.eval.tasks import TASKS, maker_of
from minimind.eval.tasks.base import TaskOptions
from minimind.report.charts import LinePlot, Series
from minimind.report.svg import draw, nice_ticks, tick_text
from minimind.report.wording_measures import MEASURES, measure_words


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_task_s_figures_have_words(language):
    assert MEASURES["en"].keys() == MEASURES["zh"].keys()
    for name in TASKS:
        for options in (TaskOptions(), TaskOptions(shots=5, chat=True)):
            for metric in maker_of(name)(options).metrics:
                words = measure_words(metric.name, language)
                assert words != metric.name, metric.name
                clean = measure_words(f"{metric.name}_clean", language)
                assert clean.startswith(words)
                assert clean != words


def test_an_exam_is_named_by_its_parts():
    assert measure_words("cmmlu_5shot_chat_letter", "en") == "CMMLU: letters, 5 shots, chat"
    assert measure_words("ceval_cloze_clean", "zh") == "C-Eval选答案文本；仅未见过的"
    assert measure_words("somebody_s_own", "en") == "somebody_s_own"


def test_a_curve_of_one_point_is_seen():
    drawn = draw(LinePlot("Loss", "tokens", "nats", (Series("loss", [(16384.0, 0.479)], 0),)))
    assert len(re.findall(r'<circle [^>]*class="f0"', drawn)) == 1


def test_axes_of_one_value_and_of_small_ones():
    ticks = nice_ticks(2.27, 2.27)
    assert 2.27 - ticks[0] == pytest.approx(ticks[-1] - 2.27, abs=0.1)
    assert ticks[-1] < 2.6
    small = [tick_text(tick, "") for tick in nice_ticks(0.0, 2.5e-5)]
    assert len(set(small)) == len(small)
    assert small[-1] == "2.5e-05"
