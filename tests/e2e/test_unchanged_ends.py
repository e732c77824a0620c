"""Ends that PEFT saved beside a LoRA without a change: a LoRA file is all there is to serve, and is proven to be."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import converter
from converter import ConverterError, DeployedLora, Refused
from fixtures.adapters import tiny_adapter
from fixtures.tiny import N_VOCAB, TinyModel

pytestmark = pytest.mark.llama

ENDS = ("model.embed_tokens.weight", "lm_head.weight")


def with_ends(base: TinyModel, n_rows: int, directory: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The plain adapter with the base's ends; its factors, and the ends."""
    shutil.copytree(tiny_adapter("plain", base), directory)
    weights, own = directory / "adapter_model.safetensors", load_file(base.hf / "model.safetensors")
    ends = {f"base_model.model.{name}": own.get(name, own[ENDS[0]])[:n_rows].copy() for name in ENDS}
    factors = load_file(weights)
    save_file(factors | ends, weights)
    return weights, factors, ends


@pytest.mark.parametrize("tied", [True, False])
def test_a_lora_file_is_proven_to_be_all(tied: bool, tmp_path: Path) -> None:
    base = TinyModel("llama", tied=tied)
    directory = tmp_path / "adapter"
    weights, factors, ends = with_ends(base, N_VOCAB, directory)
    adapter = converter.read_adapter(directory)
    (lora,) = converter.convert(adapter, tmp_path / "lora.gguf", base=base.hf)
    assert converter.verify(adapter, base.hf, DeployedLora(lora.path, base.gguf)).passed
    changed = {key: values + np.float32(0.01) for key, values in ends.items()}
    save_file(factors | changed, weights)
    with pytest.raises(Refused, match="HD010"):
        converter.convert(directory, tmp_path / "no.gguf", base=base.hf)
    assert not converter.verify(adapter, base.hf, DeployedLora(lora.path, base.gguf)).passed, "the control"


def test_tokens_that_the_trained_model_lacks_are_told(tmp_path: Path) -> None:
    base = TinyModel("llama")
    with_ends(base, N_VOCAB - 200, tmp_path / "adapter")
    adapter = converter.read_adapter(tmp_path / "adapter")
    (lora,) = converter.convert(adapter, tmp_path / "lora.gguf", base=base.hf)
    with pytest.raises(ConverterError, match="has 120 rows, a sequence has the token"):
        converter.verify(adapter, base.hf, DeployedLora(lora.path, base.gguf))
