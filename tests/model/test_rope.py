"""Angles against transformers' rotary embedding, at trained and at stretched lengths."""

import pytest
import torch
from model_doubles import qwen3_config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from doubles import tiny_config
from minimind.config import ModelConfig, RopeScaling
from minimind.errors import ConfigError
from minimind.model import CausalLM, stretch
from minimind.model.rope import rotary_tables, rotate


@pytest.mark.parametrize("head_dim", [8, 64, 128])
@pytest.mark.parametrize("length", [100, 512, 2048])
@pytest.mark.parametrize("rope_type", [None, "linear", "dynamic", "yarn"])
def test_angles_equal_transformers(rope_type, length: int, head_dim: int) -> None:
    config = ModelConfig(head_dim=head_dim, rope_theta=1e6)
    if rope_type:
        config = stretch(config, RopeScaling(rope_type=rope_type, factor=4.0))
    positions = torch.arange(length)[None]
    cos, sin = rotary_tables(config, positions)
    theirs = Qwen3RotaryEmbedding(qwen3_config(config))(torch.zeros(1), positions)
    torch.testing.assert_close(cos, theirs[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(sin, theirs[1], rtol=0, atol=2e-6)
    assert cos.dtype == torch.float32


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    config = ModelConfig()
    q, k = torch.randn(2, 1, 1, 1, 64).unbind(0)

    def score(query: int, key: int) -> float:
        turned = [
            rotate(x, *rotary_tables(config, torch.tensor([[at]])))
            for x, at in ((q, query), (k, key))
        ]
        assert turned[0].norm().item() == pytest.approx(q.norm().item(), rel=1e-5)
        return (turned[0] * turned[1]).sum().item()

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-3)


def test_stretch_sets_the_length_that_transformers_reads() -> None:
    yarn = stretch(ModelConfig(), RopeScaling(rope_type="yarn", factor=4.0))
    dynamic = stretch(ModelConfig(), RopeScaling(rope_type="dynamic", factor=4.0))
    assert yarn.max_position_embeddings == 2048
    assert dynamic.max_position_embeddings == 512


def test_an_ambiguous_dynamic_stretch_is_refused() -> None:
    config = tiny_config(rope_scaling=RopeScaling(rope_type="dynamic", factor=4.0))
    with pytest.raises(ConfigError, match=r"max_position_embeddings = 64.*512.*set them equal"):
        CausalLM(config)
