"""A compiled step is one graph, whatever documents its rows hold: no breaks, no recompiles."""

import functools

import pytest
import torch
from test_trainer import make_trainer

from doubles import tiny_config
from flash_doubles import use_flash_on_cpu
from minimind.data.batch import Batch
from minimind.model import CausalLM

T = 32
ENDS = ([32], [1, 32], [5, 9, 20, 32], list(range(2, 33, 2)), [31, 32])
"""Where documents end in a row: from one to sixteen of them."""


@pytest.fixture
def counters():
    """What torch counts while it compiles; to compile a second time is an error."""
    torch.compiler.reset()
    counted = torch._dynamo.utils.counters
    counted.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield counted
    torch.compiler.reset()


def rows_of(*ends, seed=0):
    """A micro-batch, a row for each list of ends; the last document is padding in odd rows."""
    documents = torch.zeros(len(ends), T, dtype=torch.int64)
    for row, of_row in enumerate(ends):
        for end in of_row[:-1]:
            documents[row, end:] += 1
        if row % 2 and len(of_row) > 1:
            documents[row, of_row[-2] :] = -1
    index = torch.arange(T).expand(len(ends), -1)
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    begins = torch.where(first, index, 0).cummax(1).values
    ids = torch.randint(16, 200, (len(ends), T + 1), generator=torch.Generator().manual_seed(seed))
    return Batch(input_ids=ids[:, :-1], labels=ids[:, 1:], position_ids=index - begins,
                 document_ids=documents)  # fmt: skip


def losses(steps, **train):
    """Losses of steps of two micro-batches with other boundaries each."""
    trainer = make_trainer(steps=steps, model_changes={"head_dim": 16}, **train)
    if train["attention"] != "auto":
        trainer.model.set_attention(train["attention"])
    found = []
    for step in range(steps):
        ends = ENDS[step % len(ENDS) :] + ENDS[: step % len(ENDS)]
        micro = [rows_of(*ends[:2], seed=2 * step), rows_of(*ends[2:4], seed=2 * step + 1)]
        found.append(trainer.train_step(micro).loss)
    return found


# Breaks and recompiles are decided before the backend is called: one that is quick does.
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("attention", ["auto", "sdpa", "flash"])
def test_the_trainer_compiles_once_for_all_boundaries(attention, backend, counters, monkeypatch):
    use_flash_on_cpu(monkeypatch)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    precision = "bf16" if attention == "flash" else "fp32"
    settings = {"attention": attention, "precision": precision}
    compiled = losses(5, compile=True, **settings)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1
    eager = losses(5, compile=False, **settings)
    assert compiled == pytest.approx(eager, rel={"fp32": 1e-5, "bf16": 2e-3}[precision])
    settings["attention"] = "auto"
    assert eager == pytest.approx(losses(5, compile=False, **settings), rel=2e-3)


@torch.no_grad()
def test_flex_compiles_once_for_all_boundaries(counters):
    """Its gradient exists on CUDA only."""
    model = CausalLM(tiny_config(head_dim=16)).eval()
    model.set_attention("flex")
    compiled = torch.compile(
        lambda batch: model(batch.input_ids, document_ids=batch.document_ids).logits,
        dynamic=False, backend="aot_eager",
    )  # fmt: skip
    for number in range(len(ENDS) - 1):
        batch = rows_of(*ENDS[number : number + 2], seed=number)
        model.set_attention("flex")
        found = compiled(batch)
        model.set_attention("sdpa")
        expected = model(batch.input_ids, document_ids=batch.document_ids).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1
