"""The chunked losses against torch's own cross-entropy, values and gradients."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minimind.data.batch import IGNORE
from minimind.model import linear_cross_entropy, token_log_probs
from minimind.model import loss as loss_module

N, D, V = 37, 24, 101


def tensors(*, ignored: str = "some", dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(V, (N,), generator=generator)
    if ignored == "some":
        labels[torch.rand(N, generator=generator) < 0.3] = IGNORE
    elif ignored == "all":
        labels[:] = IGNORE
    return hidden, weight, labels


def test_the_ignored_label_is_that_of_the_data() -> None:
    assert loss_module.IGNORE == IGNORE


@pytest.mark.parametrize("chunk", [1, 5, 16, 37, 1000])
@pytest.mark.parametrize("ignored", ["none", "some", "all"])
def test_cross_entropy_equals_torch(chunk: int, ignored: str) -> None:
    hidden, weight, labels = tensors(ignored=ignored)
    expected = F.cross_entropy(hidden @ weight.T, labels, reduction="sum", ignore_index=IGNORE)
    expected_grads = torch.autograd.grad(expected * 0.37, (hidden, weight))
    total, count = linear_cross_entropy(hidden, weight, labels, chunk=chunk)
    assert count.item() == (labels != IGNORE).sum()
    assert (total.dtype, count.dtype) == (torch.float32, torch.int64)
    torch.testing.assert_close(total, expected)
    grads = torch.autograd.grad(total * 0.37, (hidden, weight))  # an upstream gradient that isn't 1
    for actual, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 5, 37, 1000])
@pytest.mark.parametrize("ignored", ["none", "some", "all"])
def test_log_probs_equal_torch(chunk: int, ignored: str) -> None:
    hidden, weight, labels = tensors(ignored=ignored)
    upstream = torch.randn(N)
    expected = -F.cross_entropy(hidden @ weight.T, labels, reduction="none", ignore_index=IGNORE)
    expected_grads = torch.autograd.grad((expected * upstream).sum(), (hidden, weight))
    actual = token_log_probs(hidden, weight, labels, chunk=chunk)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    grads = torch.autograd.grad((actual * upstream).sum(), (hidden, weight))
    for got, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_what_is_at_an_ignored_position_does_not_matter() -> None:
    hidden, weight, labels = tensors()
    clean = linear_cross_entropy(hidden, weight, labels, chunk=8)[0]
    with torch.no_grad():
        hidden[labels == IGNORE] = torch.inf
    total, _ = linear_cross_entropy(hidden, weight, labels, chunk=8)
    torch.testing.assert_close(total, clean)


def test_no_rows_at_all() -> None:
    hidden, weight, labels = tensors()
    total, count = linear_cross_entropy(hidden[:0], weight, labels[:0], chunk=8)
    assert (total.item(), count.item()) == (0.0, 0)
    assert token_log_probs(hidden[:0], weight, labels[:0], chunk=8).shape == (0,)


@pytest.mark.parametrize("trained", ["hidden", "weight", "neither"])
def test_only_what_is_trained_gets_a_gradient(trained: str) -> None:
    hidden, weight, labels = tensors()
    hidden.requires_grad_(trained == "hidden")
    weight.requires_grad_(trained == "weight")
    total, _ = linear_cross_entropy(hidden, weight, labels, chunk=8)
    assert total.requires_grad is (trained != "neither")
    if trained != "neither":
        total.backward()
    assert (hidden.grad is not None) is (trained == "hidden")
    assert (weight.grad is not None) is (trained == "weight")


def test_the_gradient_that_a_gpu_fuses_is_the_same_bit_for_bit() -> None:
    hidden, weight, labels = tensors()
    logits_nV = (hidden @ weight.T).detach()
    normaliser_n1, learnt_n = logits_nV.logsumexp(-1, keepdim=True), labels != IGNORE
    given = (normaliser_n1, labels.clamp(min=0)[:, None], learnt_n)
    fused_nV = loss_module._fused_softmax_minus_one_hot(logits_nV, *given)
    assert torch.equal(fused_nV, loss_module._softmax_minus_one_hot(logits_nV, *given))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_rounds_the_products_but_not_the_sums(dtype: torch.dtype) -> None:
    hidden, weight, labels = tensors()
    expected = F.cross_entropy(hidden @ weight.T, labels, reduction="sum", ignore_index=IGNORE)
    expected_grads = torch.autograd.grad(expected, (hidden, weight))
    with torch.autocast("cpu", dtype=dtype):
        total, _ = linear_cross_entropy(hidden, weight, labels, chunk=8)
        log_probs = token_log_probs(hidden, weight, labels, chunk=8)
    assert total.dtype == log_probs.dtype == torch.float32
    for loss in (total, -log_probs.sum()):
        torch.testing.assert_close(loss, expected, rtol=5e-3, atol=0)
        grads = torch.autograd.grad(loss, (hidden, weight))
        for actual, wanted in zip(grads, expected_grads, strict=True):
            assert actual.dtype == torch.float32
            assert (actual - wanted).norm() / wanted.norm() < 0.02


def test_a_bf16_model_gets_bf16_gradients() -> None:
    hidden, weight, labels = tensors(dtype=torch.bfloat16)
    total, _ = linear_cross_entropy(hidden, weight, labels, chunk=8)
    total.backward()
    assert total.dtype == torch.float32
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation gave back."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.elements = max(self.elements, *sizes, 0) if sizes else self.elements
        return out


@pytest.mark.parametrize("function", [linear_cross_entropy, token_log_probs])
def test_logits_are_never_held_whole(function) -> None:
    rows, hidden_size, vocabulary, chunk = 512, 16, 2000, 32
    hidden = torch.randn(rows, hidden_size, requires_grad=True)
    weight = torch.randn(vocabulary, hidden_size, requires_grad=True)
    labels = torch.randint(vocabulary, (rows,))
    with LargestTensor() as largest:
        out = function(hidden, weight, labels, chunk=chunk)
        (out[0] if isinstance(out, tuple) else out).sum().backward()
    assert largest.elements == max(chunk * vocabulary, vocabulary * hidden_size)
    with LargestTensor() as largest:
        F.cross_entropy(hidden @ weight.T, labels)
    assert largest.elements == rows * vocabulary  # the meter does see whole logits


def both_losses(hidden, weight, labels):
    total, count = linear_cross_entropy(hidden, weight, labels, chunk=16)
    return total / count - token_log_probs(hidden, weight, labels, chunk=16).mean()


def test_the_losses_compile_without_graph_breaks() -> None:
    hidden, weight, labels = tensors()
    expected = both_losses(hidden, weight, labels)
    wanted = torch.autograd.grad(expected, (hidden, weight))
    torch._dynamo.reset()
    compiled = torch.compile(both_losses, fullgraph=True, backend="aot_eager")
    actual = compiled(hidden, weight, labels)
    torch.testing.assert_close(actual, expected)
    for got, want in zip(torch.autograd.grad(actual, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(compiled(hidden, weight, labels), expected)
