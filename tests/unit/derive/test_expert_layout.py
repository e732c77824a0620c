"""Which side of fused experts lora_A has: by the factors' shapes, by the base, by the PEFT that saved them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from converter.checking import check_adapter
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.diagnostics import Deployment
from fixtures.generated import adapter_config, write_safetensors
from tests.rules.specimens import tensor

RANK, N_EXPERT, HIDDEN, FFN, N_LAYER = 2, 4, 64, 96, 4


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    """gpt-oss', which keeps experts as (in, out)."""
    fields = {
        "model_type": "gpt_oss",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_local_experts": N_EXPERT,
        "num_hidden_layers": N_LAYER,
    }
    directory = tmp_path / "base"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return read_base_model(directory)


def adapter_on(directory: Path, version: str | None, **shapes: tuple[int, int]) -> Adapter:
    """A LoRA on parameters of all experts, by the rows of lora_B and the columns of lora_A."""
    tensors = {}
    for i in range(N_LAYER):
        experts = f"base_model.model.model.layers.{i}.mlp.experts"
        for name, (n_rows, n_columns) in shapes.items():
            wrapper = f"{experts}.base_layer" if name == "gate_up_proj" and "down_proj" in shapes else experts
            tensors[f"{wrapper}.lora_A.weight"] = tensor(N_EXPERT * RANK, n_columns)
            tensors[f"{wrapper}.lora_B.weight"] = tensor(n_rows, RANK * N_EXPERT)
    config = adapter_config([], r=RANK, peft_version=version, base_model_name_or_path="me/tiny")
    config["target_parameters"] = [f"mlp.experts.{name}" for name in shapes]
    directory.mkdir()
    write_safetensors(directory / "adapter_model.safetensors", tensors, {"format": "pt"})
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return read_adapter(directory)


def codes(adapter: Adapter, base: BaseModel | None) -> set[str]:
    findings = check_adapter(adapter, base, Deployment("model")).findings
    return {finding.code for finding in findings if finding.code in {"LO024", "BM002"}}


@pytest.mark.parametrize("version", [None, "0.18.1", "0.21.2"])
@pytest.mark.parametrize("turned", [False, True])
def test_experts_that_are_kept_transposed_are_read_either_way(
    version: str | None, turned: bool, base: BaseModel, tmp_path: Path
) -> None:
    gate_up, down = (((HIDDEN, 2 * FFN), (FFN, HIDDEN))) if turned else ((2 * FFN, HIDDEN), (HIDDEN, FFN))
    one = adapter_on(tmp_path / "one", version, gate_up_proj=gate_up)
    both = adapter_on(tmp_path / "both", version, gate_up_proj=gate_up, down_proj=down)
    assert codes(one, base) == codes(both, base) == set()
    assert codes(both, None) == ({"LO024"} if turned else set())


@pytest.mark.parametrize("version", [None, "0.18.1", "0.21.2"])
def test_square_experts_alone_tell_nothing(version: str | None, base: BaseModel, tmp_path: Path) -> None:
    """gpt-oss 20B has hidden_size = intermediate_size: which transformers PEFT had decides."""
    square = replace(base, dims={**base.dims, "ffn": HIDDEN, "gate_up": 2 * HIDDEN})
    alone = adapter_on(tmp_path / "alone", version, down_proj=(HIDDEN, HIDDEN))
    both = adapter_on(tmp_path / "both", version, gate_up_proj=(2 * HIDDEN, HIDDEN), down_proj=(HIDDEN, HIDDEN))
    assert codes(alone, square) == {"LO024"}
    assert codes(both, square) == set()


def test_experts_of_another_size_fit_neither_way(base: BaseModel, tmp_path: Path) -> None:
    assert codes(adapter_on(tmp_path / "adapter", "0.21.2", gate_up_proj=(FFN, HIDDEN)), base) == {"BM002"}
