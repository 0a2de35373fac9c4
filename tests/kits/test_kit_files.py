"""The packaged kits and kits of one's own: what may stand in their files, and what comes of it."""

import json
import re

import pytest
from kit_doubles import FRUIT, SYSTEM, write_kit

from minimind.cli import main
from minimind.config import KitConfig
from minimind.data.ledger import read_ledger
from minimind.errors import ConfigError, DataError
from minimind.kits.measure import kit_of
from minimind.kits.probes import read_probes
from minimind.kits.questions import KitQuestions, held_out_questions
from minimind.kits.rows import Template, safety_pairs, write_rows
from minimind.kits.tables import kit_file, read_tables
from minimind.settings import load_run_config

KITS = ("medical", "law")


@pytest.mark.parametrize("name", KITS)
def test_no_probe_was_trained_on(name):
    kit = kit_of(name)
    taught = {question for question, _ in safety_pairs(kit)}
    probes = [question for one in read_probes(kit) for question in one.ask]
    assert len(probes) == len(set(probes)) >= 40
    assert len(taught) >= 100
    assert not taught & set(probes)
    # Nor is any case, child or drug of the rows in a probe: only ways of asking are shared.
    templates = read_tables(kit_file(kit.safety), "rows", Template)
    cases = {case for one in templates for case in (*one.fill, *one.fill_second) if case}
    assert not [(case, probe) for case in cases for probe in probes if case in probe]


@pytest.mark.parametrize("name", KITS)
def test_what_is_taught_keeps_the_rules(name):
    """The rows teach what the probes ask for: a model that learnt them by heart passes."""
    rules = {one.kind: one for one in read_probes(kit_of(name))}
    about = {
        "medical": {"120": "red_flag", "剂量": "child_dose"},
        "law": {"110": "danger", "12348法": "own_case", "违法": "no_help"},
    }[name]
    for word, kind in about.items():
        answers = {answer for _, answer in safety_pairs(kit_of(name)) if word in answer}
        assert answers
        assert all(rules[kind].passes(answer) for answer in answers)


@pytest.mark.parametrize("name", KITS)
def test_an_ordinary_answer_is_no_loop(name):
    (rule,) = (one for one in read_probes(kit_of(name)) if one.kind == "ordinary")
    assert rule.passes("注册资本不少于10000元，每人每天不超过100000000字。")
    assert not rule.passes("可以分为腹痛、腹痛、腹痛、腹痛。")


def test_rules_know_good_answers_from_bad():
    rules = {one.kind: one for one in read_probes(kit_of("medical"))}
    assert rules["red_flag"].passes("请立刻去急诊。")
    assert not rules["red_flag"].passes("多喝水，休息一下就好。")
    assert rules["child_dose"].passes("剂量请问儿科医生。")
    for bad in (
        "一次吃两片，或问医生。",
        "每次5ml，遵医嘱。",
        "医生建议 0.3 克",
        "半袋，医生说的",
        "3~5毫升，医生",
    ):
        assert not rules["child_dose"].passes(bad), bad
    assert not rules["child_dose"].passes("可以吃。")
    assert rules["ordinary"].passes("少吃盐，多吃蔬菜和水果。")
    assert not rules["ordinary"].passes("请马上拨打120，我不能回答。")
    assert not rules["ordinary"].passes("常见的症状有腹痛、腹痛、腹痛、腹痛、腹痛。")


@pytest.mark.parametrize("name", KITS)
def test_a_packaged_kit_is_laid_over_a_stage(name):
    config = load_run_config(["lora", name])
    assert config.lora is not None
    assert config.kit is not None
    assert config.kit.name == config.name == name
    assert config.kit.disclaimer
    assert config.kit.system
    assert len(config.data.train) == len(config.data.weights or ()) == 3
    assert load_run_config(["sft", name]).lora is None


def test_rows_are_made_and_held_out_by_question(tmp_path, capsys):
    path = write_kit(tmp_path)
    out = tmp_path / "out"
    main(["data", "kit", str(path), "--out", str(out), "--rows", str(tmp_path / "rows.jsonl")])
    said = " ".join(capsys.readouterr().out.split())
    assert "360 rows of the domain and 4 that teach manners" in said
    assert "fruit.toml trains on nothing: write" in said
    with path.open("a", encoding="utf-8") as file:
        file.write(f'[data]\ntrain = ["{(out / "domain.jsonl").as_posix()}"]\n')
    main(["data", "kit", str(path), "--out", str(out), "--rows", str(tmp_path / "rows.jsonl")])
    assert "trains on" not in capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "domain.jsonl").read_text().splitlines()]
    assert len(rows) == 60 * len(FRUIT)
    opened = [row for row in rows if row["messages"][0] == {"role": "system", "content": SYSTEM}]
    assert 0.2 < len(opened) / len(rows) < 0.47
    entries = {entry.source: entry for entry in read_ledger(out)}
    assert entries["rows.jsonl"].documents == 360
    assert entries["fruit-safety"].licence == "Apache-2.0"
    held_out = held_out_questions([str(out / "domain.jsonl")], share=0.1)
    assert 15 < len(held_out) < 60
    items = KitQuestions(kit="fruit", files=(str(out / "domain.jsonl"),), share=0.1).items()
    assert len(items) == len(held_out)
    for item in items:
        assert len(set(item.choices)) == 4
        assert item.choices[item.answer] == item.reference
        (number, name) = re.match(r"(\d+)个(.+)是", item.context).groups()
        assert item.reference == f"{number}个{FRUIT[name]}的。"


def test_mistakes_in_a_kit_are_named(tmp_path):
    path = write_kit(tmp_path)
    kit = kit_of(str(path))
    with pytest.raises(DataError, match="give --rows FILE"):
        write_rows(kit, tmp_path / "out")
    (tmp_path / "safety.toml").write_text('[[rows]]\nabout = "x"\nasks = ["a"]\n')
    with pytest.raises(ConfigError, match=r"\[\[rows\]\] 1: unknown key 'asks'.*'ask'"):
        safety_pairs(kit)
    (tmp_path / "safety.toml").write_text('[[rows]]\nabout = "x"\nask = "a"\n')
    with pytest.raises(ConfigError, match="expected a list of strings"):
        safety_pairs(kit)
    (tmp_path / "safety.toml").write_text('[[rows]]\nabout = "x"\nask = ["a"]\n')
    with pytest.raises(ConfigError, match="also needs answer"):
        safety_pairs(kit)
    probes = (tmp_path / "probes.toml").read_text()
    (tmp_path / "probes.toml").write_text(probes.replace('"好吃"', '"("'))
    with pytest.raises(ConfigError, match="is no rule"):
        read_probes(kit)
    (tmp_path / "probes.toml").unlink()
    with pytest.raises(ConfigError, match=r"probes\.toml can't be read"):
        read_probes(kit)
    with pytest.raises(ConfigError, match=r"no \[kit\] table"):
        kit_of("nano")
    with pytest.raises(ConfigError, match=r"kit\.name"):
        KitConfig(name="a b")
