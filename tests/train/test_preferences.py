"""Preference pairs: judged, counted, written with what they are."""

import json
from collections import Counter
from fractions import Fraction

import pytest
import torch

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.cli import preferences as preferences_cli
from minimind.config import DataConfig
from minimind.data import make_loader
from minimind.data.document import is_held_out
from minimind.errors import ConfigError, DataError
from minimind.inference import Completion
from minimind.model import CausalLM
from minimind.train.preferences import (
    KIND,
    PreferenceConfig,
    Problem,
    make_pairs,
    make_preferences,
    read_problems,
    write_preferences,
)
from minimind.train.verifier import Quantity

TOKENIZER = byte_tokenizer()
PROBLEM = Problem("p1", "12-5=？", "12-5=7\n答案：7", Quantity(Fraction(7)), "unit")


def said(text, reason="stop"):
    return Completion(TOKENIZER.encode(text), reason)


def pairs(*completions, **settings):
    counts = Counter()
    config = PreferenceConfig(**settings)
    return make_pairs(PROBLEM, completions, TOKENIZER, config=config, counts=counts), counts


def test_an_own_right_answer_is_chosen_over_an_own_wrong_one():
    rows, counts = pairs(said("答案：8"), said("12减5等于7。\n答案：7"), said("不知道"))
    assert rows == [
        {
            "prompt": [{"role": "user", "content": "12-5=？"}],
            "chosen": [{"role": "assistant", "content": "12减5等于7。\n答案：7"}],
            "rejected": [{"role": "assistant", "content": "答案：8"}],
            "id": "p1",
            "reason": "rejected concludes '8', the value is 7",
            "chosen_from": "own right answer",
            "source": "unit",
            "verifier": "final-value",
            "kind": "verifier-derived, on-policy",
            "held_out": is_held_out("12-5=？", 0.05),
        }
    ]
    assert counts["answers: right"] == counts["answers: wrong"] == counts["answers: unclear"] == 1


def test_the_published_solution_stands_in_where_no_own_answer_is_right():
    rows, counts = pairs(said("答案：8"))
    assert rows[0]["chosen"][0]["content"] == PROBLEM.solution
    assert rows[0]["chosen_from"] == "published solution"
    assert counts["pairs: chosen is published"] == 1
    rows, _ = pairs(said("答案：8"), said("答案：7"), chosen="published")
    assert rows[0]["chosen"][0]["content"] == PROBLEM.solution


def test_degenerate_answers_are_counted_and_not_used():
    rows, counts = pairs(
        said("答案：8", "length"), said("答案：8", "context"), said("嗯"), said("答案：7"),
        said("答案：7"),
    )  # fmt: skip
    assert rows == []
    assert counts["answers: too long"] == 2
    assert counts["answers: unclear"] == 1
    assert counts["answers: identical to another"] == 1
    assert counts["problems: no wrong answer sampled"] == 1
    rows, counts = pairs(
        said("答案：8"), said("答案：9"), said("答案：8"), said("答案：10"), pairs=2
    )
    assert [row["rejected"][0]["content"] for row in rows] == ["答案：8", "答案：9"]
    assert counts["pairs"] == 2


def problem_file(path, rows):
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def good_row(number):
    return {
        "id": f"q{number}",
        "prompt": f"{number}+1=？",
        "solution": f"{number}+1={number + 1}\n答案：{number + 1}",
        "answer_value": number + 1,
        "source": "unit",
    }


def test_reading_problems_counts_what_cannot_be_used(tmp_path):
    path = problem_file(
        tmp_path / "problems.jsonl",
        [
            good_row(1),
            "{broken",
            "[1]",
            good_row(2) | {"answer_value": "丙商店"},
            good_row(3) | {"answer_value": 99},
            {"prompt": "", "solution": "x", "answer_value": 1},
            {"prompt": "x", "answer_value": 1},
        ],
    )
    problems, skipped = read_problems(path)
    assert [problem.id for problem in problems] == ["q1"]
    assert skipped == {
        "row is not JSON": 1,
        "row is not an object": 1,
        "answer is not one number": 1,
        "verifier can't confirm the published solution": 1,
        "row has no prompt": 1,
        "row has no solution": 1,
    }


@pytest.mark.parametrize("content", ["", '{"prompt": "x"}'])
def test_no_usable_problem(tmp_path, content):
    path = tmp_path / "problems.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=r"problems\.jsonl.*no problem"):
        read_problems(path)
    with pytest.raises(DataError, match="minimind data build"):
        read_problems(tmp_path / "missing.jsonl")


@pytest.mark.parametrize("settings", [{"samples": 0}, {"pairs": 0}, {"chosen": "best"}])
def test_wrong_settings_name_the_flag(settings):
    with pytest.raises(ConfigError, match=f"--{next(iter(settings))}"):
        PreferenceConfig(**settings)


@pytest.fixture(scope="module")
def wrong_model():
    """A model that was taught one wrong answer to everything: 答案：0."""
    torch.manual_seed(0)
    model = CausalLM(tiny_config(max_position_embeddings=128, hidden_size=64))
    rendered = [
        TOKENIZER.render(
            [
                {"role": "user", "content": f"{number}+1=？"},
                {"role": "assistant", "content": "答案：0"},
            ]
        )
        for number in range(10, 30)
    ]
    ids = torch.tensor([one.ids for one in rendered])
    labels = torch.tensor(
        [[i if m else -100 for i, m in zip(r.ids, r.mask, strict=True)] for r in rendered]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        logits_BTV = model(ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    return model.eval()


def test_a_model_that_is_wrong_gives_pairs_that_the_loader_reads(wrong_model, tmp_path):
    problems, _ = read_problems(
        problem_file(tmp_path / "problems.jsonl", [good_row(n) for n in range(10, 90)])
    )
    config = PreferenceConfig(samples=2, temperature=0.1, max_new_tokens=20, seed=1)
    answered = []
    made = make_preferences(
        wrong_model, TOKENIZER, problems=problems, config=config, on_answer=answered.append
    )
    assert len(answered) == 160
    assert len(made.rows) > 40
    assert made.counts["answers"] == 160
    assert all(row["rejected"][0]["content"] != row["chosen"][0]["content"] for row in made.rows)
    assert made.tokens["chosen"] > made.tokens["rejected"]
    out = tmp_path / "sub" / "preferences.jsonl"
    meta = json.loads(
        write_preferences(made, out, checkpoint="c", config=config).read_text(encoding="utf-8")
    )
    assert meta["kind"] == KIND
    assert meta["counts"]["pairs"] == len(made.rows)
    data = DataConfig(train=(str(out),), kind="preference", sequence_length=128, epochs_limit=1,
                      validation_share=config.held_out_share)  # fmt: skip
    loader = make_loader(data, TOKENIZER, batch_rows=8, micro_batch_rows=8, seed=0)
    trained = sum(batch.rows // 2 for step in loader for batch in step)
    assert trained == sum(not row["held_out"] for row in made.rows)


def test_problems_that_do_not_fit(wrong_model):
    long = Problem("p", "长" * 60, "答案：7", Quantity(Fraction(7)), "unit")
    made = make_preferences(
        wrong_model, TOKENIZER, problems=[long, PROBLEM], config=PreferenceConfig(samples=1)
    )
    assert made.counts["problems: longer than the context"] == 1
    with pytest.raises(DataError, match="128 tokens"):
        make_preferences(
            wrong_model, TOKENIZER, problems=[long], config=PreferenceConfig(samples=1)
        )


def test_the_command(wrong_model, tmp_path, capsys):
    checkpoint.save(tmp_path / "c", model=wrong_model, tokenizer=TOKENIZER)
    path = problem_file(tmp_path / "problems.jsonl", [*map(good_row, range(10, 20)), "{broken"])
    out = tmp_path / "pairs.jsonl"
    code = preferences_cli.main(
        [str(tmp_path / "c"), "--problems", str(path), "--out", str(out), "--samples", "1",
         "--temperature", "0.1", "--max-new-tokens", "20", "--json"]
    )  # fmt: skip
    figures = json.loads(capsys.readouterr().out)
    assert code == 0
    assert figures["counts"]["pairs"] == len(out.read_text(encoding="utf-8").splitlines())
    assert figures["counts"]["skipped: row is not JSON"] == 1


def test_no_pair_at_all_says_what_to_do(tmp_path):
    from minimind.train.preferences import PreferenceSet

    with pytest.raises(DataError, match="--temperature"):
        write_preferences(
            PreferenceSet([]), tmp_path / "p.jsonl", checkpoint="c", config=PreferenceConfig()
        )
