"""`minimind eval RUN --kit`: a tiny run of a kit, its page, and what is refused."""

import json
from dataclasses import replace

import pytest
from kit_doubles import kit_run

from minimind import checkpoint
from minimind.checkpoint.kit import read_card
from minimind.cli import main
from minimind.cli.eval import main as eval_main
from minimind.errors import CheckpointError, UserError
from minimind.export.loading import read_source
from minimind.export.model_card import collect, render
from minimind.kits.measure import Asking, kit_of, measure
from minimind.kits.page import write_page
from minimind.train.run import run
from run_doubles import run_directory, tiny_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A base, a kit with replay, the same without, and a kit on another base."""
    where = tmp_path_factory.mktemp("kits")
    base = tiny_run(where, kind="chat", name="base", steps=20)
    base = replace(base, model=replace(base.model, max_position_embeddings=256))
    run(base)
    kit = kit_run(base, where / "fruit")
    kit = replace(
        kit,
        train=replace(kit.train, steps=60, batch_rows=8, micro_batch_rows=8),
        data=replace(kit.data, sequence_length=128),
        optim=replace(kit.optim, kind="adamw", lr=2e-2),
    )
    run(kit)
    alone = replace(kit.data, train=kit.data.train[:2], weights=(0.6, 0.1))
    alone = replace(kit, name="alone", data=alone, train=replace(kit.train, steps=4))
    run(alone)
    other = replace(base, name="other", seed=7)
    run(other)
    foreign = replace(
        alone, name="foreign", init=replace(kit.init, checkpoint=str(run_directory(other)))
    )
    run(foreign)
    return where, {c.name: run_directory(c) for c in (base, kit, alone, other, foreign)}


def test_the_page_says_what_changed(runs, tmp_path, capsys):
    where, directories = runs
    code = eval_main([
        str(directories["fruit"]), str(directories["alone"]),
        "--kit", str(where / "fruit/fruit.toml"), "--out", str(tmp_path), "--limit", "20",
    ])  # fmt: skip
    assert code == 0
    shown = capsys.readouterr().out
    assert "fruit_choice" in shown
    results = json.loads((tmp_path / "kit-fruit.json").read_text())["results"]
    assert set(results) == {"base", "fruit", "alone"}
    assert results["base"]["fruit_choice"]["chance"] == 0.25
    # What it was trained on moved, by more than its interval: the loss on held-out answers.
    after, before = results["fruit"]["fruit_answer_loss"], results["base"]["fruit_answer_loss"]
    assert after["high"] < before["low"]
    assert {"fruit_probes", "fruit_probes_system"} <= set(results["fruit"])
    page = (tmp_path / "kit-fruit.html").read_text(encoding="utf-8")
    assert "not to be eaten" in page
    assert "烂果能吃吗？" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    text = (tmp_path / "kit-fruit.zh-CN.md").read_text(encoding="utf-8")
    assert "领域套件" in text
    assert "60 steps" in text


def test_questions_in_the_training_rows_are_left_out_of_a_second_figure(runs):
    where, directories = runs
    kit = kit_of(str(where / "fruit/fruit.toml"))
    result = measure(
        replace(kit, general=(), probes=""), {"fruit": str(directories["fruit"])}, Asking()
    )
    choice = result.tuned[0].scored["fruit_choice"]
    assert choice.measure.details["contamination_checked"] > 0
    assert (result.tuned[0].replay, result.tuned[0].adapters) == (pytest.approx(0.3), True)
    assert result.tuned[0].parameters < result.base.parameters / 5


def test_a_full_fine_tune_is_measured_too(runs, tmp_path):
    where, _ = runs
    kit = kit_run(tiny_run(where, kind="chat", name="base"), where / "fruit")
    full = replace(kit, name="full", lora=None, train=replace(kit.train, steps=2))
    run(full)
    asking = Asking(limit=4, contamination=False, part="development")
    config = replace(kit_of(str(where / "fruit/fruit.toml")), general=())
    result = measure(config, {"full": str(run_directory(full))}, asking)
    assert not result.tuned[0].adapters
    assert result.tuned[0].parameters == result.base.parameters
    assert any(path.suffix == ".html" for path in write_page(result, tmp_path))


def test_what_does_not_belong_together_is_refused(runs):
    where, directories = runs
    toml = str(where / "fruit/fruit.toml")
    with pytest.raises(UserError, match=r"foreign was trained on .*other.*the first one on .*base"):
        measure(kit_of(toml), {n: str(directories[n]) for n in ("fruit", "foreign")}, Asking())
    with pytest.raises(UserError, match="is of kit 'fruit', not 'law'"):
        measure(kit_of("law"), {"fruit": str(directories["fruit"])}, Asking())
    with pytest.raises(UserError, match="began from random weights"):
        measure(kit_of(toml), {"base": str(directories["base"])}, Asking())
    with pytest.raises(UserError, match="--tasks with --kit"):
        eval_main([str(directories["fruit"]), "--kit", toml, "--tasks", "arithmetic"])


def test_an_adapter_names_its_base_when_that_is_another(runs):
    """The adapter moved beside a checkpoint that isn't its base: both are named."""
    _, directories = runs
    directory = checkpoint.resolve(directories["fruit"])
    base = checkpoint.base_of(directory)
    weights = base / "model.safetensors"
    kept, manifest = weights.read_bytes(), (base / "manifest.json").read_bytes()
    other = checkpoint.resolve(directories["other"])
    try:
        weights.write_bytes((other / "model.safetensors").read_bytes())
        (base / "manifest.json").unlink()
        with pytest.raises(CheckpointError) as raised:
            checkpoint.load(directory)
        assert str(directory) in str(raised.value)
        assert str(base) in str(raised.value)
    finally:
        weights.write_bytes(kept)
        (base / "manifest.json").write_bytes(manifest)


def test_the_card_and_the_export_carry_the_disclaimer(runs, tmp_path):
    _, directories = runs
    card = read_card(checkpoint.resolve(directories["fruit"]))
    assert card is not None
    assert (card.name, card.disclaimer) == ("fruit", "not to be eaten")
    source = read_source(directories["fruit"])
    assert "**not to be eaten**" in render(collect(source, name="fruit", licence=None))
    out = tmp_path / "export"
    main(["export", "hf", str(directories["fruit"]), str(out), "--no-verify"])
    assert read_card(out) == card
    (out / "kit.json").write_text('{"name": 3}')
    with pytest.raises(CheckpointError, match=r"is no kit\.json"):
        read_card(out)
