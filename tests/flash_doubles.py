"""torch's flash kernels for varlen attention run on CUDA only: their contract, on a CPU.

Registered as the CPU's kernels of torch's own operator, so that our use of it runs as it is: its
schema, its shapes under a compiler and its gradient are torch's, the arithmetic is here. What the
kernels refuse (torch's `flash_api.cpp`) is asserted.
"""

import torch
from torch.nn.attention import varlen


def use_flash_on_cpu(monkeypatch):
    """Let a model on the CPU be told `flash`."""
    varlen._varlen_attn.register_kernel("cpu")(_forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(_backward)
    monkeypatch.setattr("minimind.model.attention.check_flash", lambda device: None)


def _forward(
    query, key, value, starts, starts_k, max_q, max_k, is_causal=False, scale=None,
    window_size=(-1, -1), *_,
):  # fmt: skip
    _check(query, key, value, starts, starts_k, max_q)
    assert is_causal == (list(window_size) == [-1, 0])
    out = torch.empty_like(query)
    for part, (_, _, v), weights in _documents((query, key, value), starts, window_size):
        out[part] = (weights @ v).transpose(0, 1).to(out.dtype)
    sums = torch.zeros(query.shape[1], query.shape[0])
    return out, sums, torch.zeros(2, dtype=torch.uint64)


def _backward(
    grad_out, query, key, value, out, sums, starts, starts_k, max_q, max_k, is_causal, state,
    scale=None, window_size=(-1, -1),
):  # fmt: skip
    _check(query, key, value, starts, starts_k, max_q)
    grads = [torch.empty_like(x) for x in (query, key, value)]
    for part, (q, k, v), weights in _documents((query, key, value), starts, window_size):
        grad = grad_out[part].transpose(0, 1).float()
        towards = grad @ v.mT
        inner = (weights * towards).sum(-1, keepdim=True)
        scores = weights * (towards - inner) * q.shape[-1] ** -0.5
        of_heads = (scores @ k, scores.mT @ q, weights.mT @ grad)
        for whole, one in zip(grads, of_heads, strict=True):
            grouped = one.unflatten(0, (whole.shape[1], -1)).sum(1)
            whole[part] = grouped.transpose(0, 1).to(whole.dtype)
    return tuple(grads)


def _documents(rows, starts, window_size):
    """Yield slice, (q, k, v) of all heads in fp32 and softmax weights of each document."""
    left, right = window_size
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        heads = rows[0].shape[1]
        q, k, v = (
            x[begin:end].transpose(0, 1).float().repeat_interleave(heads // x.shape[1], dim=0)
            for x in rows
        )
        ahead = torch.arange(end - begin) - torch.arange(end - begin)[:, None]
        seen = ahead <= right if right >= 0 else torch.ones_like(ahead, dtype=torch.bool)
        if left >= 0:
            seen &= ahead >= -left
        scores = q @ k.mT * q.shape[-1] ** -0.5
        yield slice(begin, end), (q, k, v), scores.masked_fill(~seen, -torch.inf).softmax(-1)


def _check(query, key, value, starts, starts_k, longest):
    assert query.dtype in (torch.bfloat16, torch.float16)
    assert key.dtype == value.dtype == query.dtype
    assert query.shape[-1] % 8 == 0
    assert query.shape[-1] <= 256
    assert query.shape[1] % key.shape[1] == 0
    assert all(x.dim() == 3 and x.stride(-1) == 1 for x in (query, key, value))
    for one in (starts, starts_k):
        assert one.dtype == torch.int32
        assert one.is_contiguous()
        assert one[0] == 0
        assert one[-1] == len(query)
        lengths = one.diff()
        assert lengths.min() >= 0
        assert lengths.max() <= longest
