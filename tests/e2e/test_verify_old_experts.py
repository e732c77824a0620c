"""adapter-verify of experts one by one, under the names that Mixtral's had in transformers 4: w1, w2, w3."""

import json
from pathlib import Path

import numpy as np
import pytest

from converter.conversion import plan, write
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.errors import ConverterError
from converter.verification.llama_cpp import LlamaCpp
from converter.verification.reference import Reference
from converter.verification.verification import Case, DeployedModel, prove
from fixtures.generated import Tensor, adapter_config, write_safetensors
from fixtures.more_adapters import SEQUENCES
from fixtures.more_models import MoreModel

pytestmark = pytest.mark.llama

MIXTRAL = MoreModel("mixtral")
RANK = 3


def old_adapter(directory: Path) -> Adapter:
    """A LoRA on each expert's matrices, one module each."""
    config = json.loads((MIXTRAL.hf / "config.json").read_text(encoding="utf-8"))
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {"w1": (inner, hidden), "w2": (hidden, inner), "w3": (inner, hidden)}
    random = np.random.default_rng(5)

    def factor(*shape: int) -> Tensor:
        return "F32", shape, (0.08 * random.standard_normal(shape)).astype("<f4").tobytes()

    tensors: dict[str, Tensor] = {}
    for layer in range(config["num_hidden_layers"]):
        for expert in range(config["num_local_experts"]):
            for name, (n_out, n_in) in shapes.items():
                module = f"base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}"
                tensors |= {
                    f"{module}.lora_A.weight": factor(RANK, n_in),
                    f"{module}.lora_B.weight": factor(n_out, RANK),
                }
    directory.mkdir()
    write_safetensors(directory / "adapter_model.safetensors", tensors, {"format": "pt"})
    stated = adapter_config(list(shapes), r=RANK, lora_alpha=2 * RANK, base_model_name_or_path="me/tiny")
    (directory / "adapter_config.json").write_text(json.dumps(stated), encoding="utf-8")
    return read_adapter(directory)


def test_it_is_proven_and_a_tensor_that_lacks_its_delta_is_named(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    adapter = old_adapter(tmp_path / "adapter")
    deployed = plan(adapter, read_base_model(MIXTRAL.gguf), Deployment("model"))
    (written,) = write(deployed, tmp_path / "model.gguf")
    proven = prove(Case(adapter, MIXTRAL.hf, DeployedModel(written.path, MIXTRAL.gguf), SEQUENCES), llama_cpp)
    assert not list(proven.failures)
    assert proven.comparison is not None
    assert proven.comparison.effect_ratio < 1e-10
    base = prove(Case(adapter, MIXTRAL.hf, DeployedModel(MIXTRAL.gguf, MIXTRAL.gguf), SEQUENCES), llama_cpp)
    assert any(failure.startswith("tensor proof: blk.0.ffn_gate_exps.weight") for failure in base.failures)


def test_a_gguf_that_transformers_takes_for_another_model_is_told_with_the_way_out(tmp_path: Path) -> None:
    """A Mixtral's says `llama`."""
    with pytest.raises(ConverterError, match="give the Hugging Face directory of the same model with --base"):
        Reference(MIXTRAL.gguf, old_adapter(tmp_path / "adapter"))
