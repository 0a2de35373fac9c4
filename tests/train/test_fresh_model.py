"""Fresh weights that begin as the identity."""

import dataclasses

import torch

from doubles import tiny_config
from minimind.config import InitConfig, RunConfig
from minimind.train.start import fresh_model


def test_zero_projections_leave_the_embedding_as_it_is_and_learn() -> None:
    config = RunConfig(model=tiny_config(), init=InitConfig(zero_projections=True))
    model = fresh_model(config).eval()
    ids = torch.randint(0, config.model.vocab_size, (2, 5))
    hidden = model(ids, logits="none").hidden_BTD
    torch.testing.assert_close(hidden, model.model.norm(model.model.embed_tokens(ids)))
    model(ids).logits.logsumexp(-1).sum().backward()
    written = [p for name, p in model.named_parameters() if "o_proj" in name or "down_proj" in name]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in written)
    plain = fresh_model(dataclasses.replace(config, init=InitConfig()))
    assert all(p.abs().max() > 0 for name, p in plain.named_parameters() if "o_proj" in name)
