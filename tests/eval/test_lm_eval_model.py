"""Our lm-eval model against lm-eval's own `hf` model on the same directory."""

import json
import os
import subprocess
import sys

import pytest
import torch

from doubles import byte_tokenizer, tiny_config
from minimind import checkpoint
from minimind.model import CausalLM
from minimind.tokenizer import train_tokenizer

pytest.importorskip("lm_eval")
pytest.importorskip("transformers")

TEXTS = [
    "以下是单项选择题，请选出其中的正确答案。\n\n床前明月光\nA. 一\nB. 二\n答案：A\n\n疑是地上霜\n"
    "A. 三\nB. 四\n答案：",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n答案：",
    "Once upon a time there was a fox ",
    "床前明月光\n\n  疑是地上霜 12345 ",
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    corpus = ["床前明月光，疑是地上霜。举头望明月，低头思故乡。答案：单项选择题 the fox time"] * 50
    tokenizer = train_tokenizer(corpus, vocab_size=330)
    torch.manual_seed(3)
    model = CausalLM(tiny_config(vocab_size=330, max_position_embeddings=96, initializer_range=0.3))
    return checkpoint.save(
        tmp_path_factory.mktemp("model") / "tiny", model=model.eval(), tokenizer=tokenizer
    )


@pytest.fixture(scope="module")
def models(directory):
    from lm_eval.models.huggingface import HFLM

    from minimind.eval.lm_eval_model import MiniMindLM

    theirs = HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=4)
    return MiniMindLM(str(directory)), theirs


def instances(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, number) for number, args in enumerate(arguments)]


def close(ours, theirs):
    assert [one[1] for one in ours] == [one[1] for one in theirs]
    assert [one[0] for one in ours] == pytest.approx([one[0] for one in theirs], abs=1e-3)


@pytest.mark.parametrize("kind", ["loglikelihood", "loglikelihood_rolling"])
def test_a_directory_in_bf16_gives_the_numbers_of_hf_in_float32(directory, tmp_path, kind):
    """What `minimind export hf` writes: computed in fp32 by both, not in the weights' dtype."""
    from lm_eval.models.huggingface import HFLM

    from minimind.eval.lm_eval_model import MiniMindLM

    model, tokenizer = checkpoint.load(directory, dtype=torch.bfloat16)
    half = checkpoint.save(tmp_path / "half", model=model, tokenizer=tokenizer)
    theirs = HFLM(pretrained=str(half), device="cpu", dtype="float32", batch_size=4)
    arguments = [(text,) if "rolling" in kind else (text, "故乡明月") for text in TEXTS]
    ours, reference = (
        getattr(lm, kind)(instances(kind, arguments), disable_tqdm=True)
        for lm in (MiniMindLM(str(half)), theirs)
    )
    if kind == "loglikelihood":
        close(ours, reference)
    else:
        assert ours == pytest.approx(reference, abs=1e-3)


def test_loglikelihoods_equal_those_of_hf(models):
    answers = ["A", "B", " C", "故乡", "故乡明月", "霜\n举头"]
    arguments = [(text, answer) for text in TEXTS for answer in answers]
    arguments += [("", "床前明月光"), ("", "fox"), ("长" * 90, "故乡"), ("明月" * 60, "故乡")]
    ours, theirs = models
    requests = instances("loglikelihood", arguments)
    close(ours.loglikelihood(requests, disable_tqdm=True),
          theirs.loglikelihood(requests, disable_tqdm=True))  # fmt: skip


def test_rolling_loglikelihoods_equal_those_of_hf_over_several_windows(models):
    ours, theirs = models
    requests = instances("loglikelihood_rolling", [(text * 4,) for text in TEXTS] + [("霜",)])
    assert ours.loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx(
        theirs.loglikelihood_rolling(requests, disable_tqdm=True), abs=1e-3
    )


def test_answers_until_a_stop_text_equal_those_of_hf(models):
    ours, theirs = models
    settings = {"until": ["月", "\n\n"], "max_gen_toks": 20, "do_sample": False}
    # One at a time: hf pads on the left, and random weights make near ties.
    requests = instances("generate_until", [(text, settings) for text in TEXTS])
    assert ours.generate_until(requests, disable_tqdm=True) == [
        theirs.generate_until([request], disable_tqdm=True)[0] for request in requests
    ]


def test_chat_prompts_and_their_ids_equal_those_of_hf(models):
    ours, theirs = models
    turns = [
        {"role": "system", "content": "你是老师。"},
        {"role": "user", "content": "床前？"},
        {"role": "assistant", "content": "明月光"},
        {"role": "user", "content": "疑是？"},
    ]
    asked = ours.apply_chat_template(turns)
    assert asked == theirs.apply_chat_template(turns)
    assert ours.tok_encode(asked) == theirs.tok_encode(asked)
    begun = [*turns, {"role": "assistant", "content": "答案是"}]
    assert ours.apply_chat_template(begun, add_generation_prompt=False) == (
        theirs.apply_chat_template(begun, add_generation_prompt=False)
    )
    request = instances("loglikelihood", [(asked, "地上霜"), (asked, "A")])
    close(ours.loglikelihood(request, disable_tqdm=True),
          theirs.loglikelihood(request, disable_tqdm=True))  # fmt: skip


QUESTIONS = [
    {"question": f"第{i}句：床前明月光，下一句是", "A": "疑是地上霜", "B": "举头望明月",
     "C": f"低头思故乡{i}", "D": "the fox", "answer": "ABCD"[i % 4]}
    for i in range(24)
]  # fmt: skip


@pytest.fixture
def task_files(tmp_path):
    """Three tasks of different kinds over the same rows: letters, answer texts, perplexity."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in QUESTIONS))
    head = (
        f"dataset_path: json\ndataset_kwargs:\n  data_files: {{test: {rows}, dev: {rows}}}\n"
        "test_split: test\nfewshot_split: dev\nfewshot_config: {sampler: first_n}\n"
        'target_delimiter: ""\n'
    )
    accuracy = "metric_list: [{metric: acc}, {metric: acc_norm}]\noutput_type: multiple_choice\n"
    letters = (
        'doc_to_text: "{{question}}\\nA. {{A}}\\nB. {{B}}\\nC. {{C}}\\nD. {{D}}\\n答案："\n'
        'doc_to_choice: ["A", "B", "C", "D"]\n'
    )
    target = "doc_to_target: \"{{['A', 'B', 'C', 'D'].index(answer)}}\"\n"
    texts = (
        'doc_to_text: "{{question}}\\n答案："\n'
        'doc_to_choice: ["{{A}}", "{{B}}", "{{C}}", "{{D}}"]\n'
    )
    rolling = (
        'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{question}}{{A}}"\n'
        "metric_list: [{metric: bits_per_byte}]\n"
    )
    for name, body in (
        ("mm_letters", accuracy + letters + target),
        ("mm_texts", accuracy + texts + target),
        ("mm_rolling", rolling),
    ):
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\n{head}{body}")
    return tmp_path


def test_three_tasks_give_the_accuracy_counts_of_hf(models, task_files):
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(task_files), include_defaults=False)
    names = ["mm_letters", "mm_texts", "mm_rolling"]
    ours, theirs = (
        simple_evaluate(model=model, tasks=list(names), task_manager=manager, num_fewshot=0,
                        bootstrap_iters=0)["results"]
        for model in models
    )  # fmt: skip
    for name in names[:2]:
        for metric in ("acc,none", "acc_norm,none"):
            assert round(ours[name][metric] * 24) == round(theirs[name][metric] * 24)
    assert ours["mm_rolling"]["bits_per_byte,none"] == pytest.approx(
        theirs["mm_rolling"]["bits_per_byte,none"], abs=1e-4
    )


@pytest.mark.slow
def test_the_command_of_lm_eval_knows_the_model(directory, task_files, tmp_path):
    arguments = ["--model", "minimind", "--model_args", f"pretrained={directory}",
                 "--tasks", "mm_letters", "--include_path", str(task_files),
                 "--num_fewshot", "1", "--output_path", str(tmp_path / "out.json")]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "minimind.eval", *arguments],
        capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mm_letters" in done.stdout
    assert "minimind" in done.stdout


def test_a_directory_without_a_template_says_so(tmp_path, directory):
    from minimind.eval.lm_eval_model import MiniMindLM

    model = CausalLM(tiny_config())
    bare = checkpoint.save(tmp_path / "bare", model=model, tokenizer=byte_tokenizer())
    (bare / "chat_template.jinja").unlink()
    (bare / "manifest.json").unlink()
    with pytest.raises(ValueError, match="has no chat template"):
        MiniMindLM(str(bare)).apply_chat_template([{"role": "user", "content": "?"}])
