"""A model with eyes as transformers' LLaVA: the export runs it and compares."""

import pytest
import torch
from vision_doubles import save_encoder, seeing_run

from minimind.errors import ExportError
from minimind.export.hf import export_hf
from minimind.train.run import run


@pytest.mark.parametrize(("family", "dtype"), [("clip", "fp32"), ("siglip", "bf16")])
def test_llava_computes_what_we_do(family, dtype, tmp_path):
    encoder = save_encoder(tmp_path / family, family)
    config = seeing_run(tmp_path, encoder, name="see", steps=4, train="all")
    summary = export_hf(run(config).directory, tmp_path / "llava", dtype=dtype)
    assert [check.name for check in summary.checks] == ["weights", "chat template", "logits"]
    assert all(check.passed for check in summary.checks)
    assert {"config.json", "model.safetensors", "processor_config.json"} <= set(summary.files)


def test_other_formats_say_what_would_be_lost(seeing, tmp_path):
    from minimind.export.gguf import export_gguf

    with pytest.raises(ExportError, match="would lose its projector"):
        export_gguf(seeing, tmp_path / "a.gguf")
    assert torch.is_grad_enabled()
