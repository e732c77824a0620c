"""GGUFs that llama.cpp's converter made by --fuse-qkv or --fuse-gate-up-exps: a LoRA for that file, and merges."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from gguf import GGUFReader

import converter
from converter import DeployedLora, DeployedModel, Deployment
from fixtures.adapters import tiny_adapter
from fixtures.measure import tensors
from fixtures.more_adapters import more_adapter
from fixtures.more_models import MoreModel
from fixtures.tiny import TinyModel
from tools.llama_cpp_sources import Job, convert, sources

pytestmark = [
    pytest.mark.llama,
    pytest.mark.skipif(sources() is None, reason="needs llama.cpp's converter (make .venv/llama.cpp)"),
]


class Case(NamedTuple):
    """A model, its adapter, and the tensor that its GGUF has in place of several."""

    model: TinyModel | MoreModel
    adapter: Callable[[], Path]
    fused: str


def _tiny(name: str, recipe: str) -> Case:
    model = TinyModel(name, tied=False)
    return Case(model, lambda: tiny_adapter(recipe, model), "attn_qkv")


CASES = {
    "rows in an order of their own": _tiny("llama", "plain"),
    "ranks and scales of their own": _tiny("llama", "patterns"),
    "biases": _tiny("qwen2", "plain"),
    "experts": Case(
        MoreModel("qwen35moe"), lambda: more_adapter(MoreModel("qwen35moe"), on_experts=True), "ffn_gate_up_exps"
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def base(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fused") / f"{case.model}.gguf"
    assert convert([Job(case.model.hf, path, fuse=True)]) == {}
    assert f"blk.0.{case.fused}.weight" in tensors(path)
    return path


def test_a_lora_is_for_the_file_as_it_is(case: Case, base: Path, tmp_path: Path) -> None:
    adapter, lora = converter.read_adapter(case.adapter()), tmp_path / "lora.gguf"
    converter.convert(adapter, lora, base=base)
    assert f"blk.0.{case.fused}.weight.lora_b" in tensors(lora)
    proof = converter.verify(adapter, case.model.hf, DeployedLora(lora, base))
    assert proof.passed
    assert proof.comparison is not None
    assert proof.comparison.effect_ratio < 1e-5
    spoilt = _exchanged(lora, case, tmp_path / "spoilt.gguf")
    assert not converter.verify(adapter, case.model.hf, DeployedLora(spoilt, base)).passed


def test_a_merged_model_is_that_of_the_base_as_it_was(case: Case, base: Path, tmp_path: Path) -> None:
    adapter, merged = converter.read_adapter(case.adapter()), tmp_path / "model.gguf"
    converter.convert(adapter, merged, base=base, deployment=Deployment("model"))
    proof = converter.verify(adapter, case.model.hf, DeployedModel(merged, base))
    assert proof.passed
    assert proof.comparison is not None
    assert proof.comparison.effect_ratio < 1e-5
    plain = converter.convert(adapter, tmp_path / "plain.gguf", base=case.model.gguf, deployment=Deployment("model"))
    wanted, found = tensors(plain[0].path), tensors(merged)
    assert ("attn_qkv" in case.fused) == ("blk.0.attn_q.weight" in found)
    for name, values in found.items():
        if "gate_up_exps" in name:  # which stays as the base has it
            wanted[name] = np.concatenate([wanted[name.replace("gate_up", half)] for half in ("gate", "up")], axis=1)
        assert values.tobytes() == wanted[name].tobytes(), name


def _exchanged(lora: Path, case: Case, spoilt: Path) -> Path:
    """The file with two rows of a lora_B in each other's place."""
    spoilt.write_bytes(lora.read_bytes())
    written = np.memmap(spoilt, np.uint8, "r+")
    tensor = next(it for it in GGUFReader(lora).tensors if f"{case.fused}.weight.lora_b" in it.name)
    n_rows = int(np.prod(tensor.shape[1:]))
    rows = written[tensor.data_offset : tensor.data_offset + tensor.n_bytes].reshape(n_rows, -1)
    rows[[0, 1]] = rows[[1, 0]]
    written.flush()
    return spoilt
