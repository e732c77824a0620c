"""GGUFs that llama.cpp's converter made by --fuse-qkv: a LoRA for that very file, and merged models, are exact."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

import converter
from converter import DeployedLora, DeployedModel, Deployment
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel
from tools.llama_cpp_sources import Job, convert, sources

pytestmark = [
    pytest.mark.llama,
    pytest.mark.skipif(sources() is None, reason="needs llama.cpp's converter (make .venv/llama.cpp)"),
]


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest) -> TinyModel:
    """One whose q and k GGUF has in an order of its own, and one with biases."""
    return TinyModel(request.param, tied=False)


@pytest.fixture(scope="module")
def base(model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fused") / f"{model}.gguf"
    assert convert([Job(model.hf, path, fuse_qkv=True)]) == {}
    names = {tensor.name for tensor in GGUFReader(path).tensors}
    assert "blk.0.attn_qkv.weight" in names
    assert "blk.0.attn_q.weight" not in names
    return path


@pytest.mark.parametrize("recipe", ["plain", "patterns"])
def test_a_lora_is_for_the_file_as_it_is(recipe: str, model: TinyModel, base: Path, tmp_path: Path) -> None:
    adapter, lora = tiny_adapter(recipe, model), tmp_path / "lora.gguf"
    converter.convert(adapter, lora, base=base)
    assert any("attn_qkv.weight.lora_b" in tensor.name for tensor in GGUFReader(lora).tensors)
    verify = converter.verify(converter.read_adapter(adapter), model.hf, DeployedLora(lora, base))
    assert verify.passed
    assert verify.comparison is not None
    assert verify.comparison.effect_ratio < 1e-5
    spoilt = _exchanged(lora, tmp_path / "spoilt.gguf")
    assert not converter.verify(converter.read_adapter(adapter), model.hf, DeployedLora(spoilt, base)).passed


def test_a_merged_model_has_its_parts_apart(model: TinyModel, base: Path, tmp_path: Path) -> None:
    adapter, merged = tiny_adapter("plain", model), tmp_path / "model.gguf"
    converter.convert(adapter, merged, base=base, deployment=Deployment("model"))
    verify = converter.verify(converter.read_adapter(adapter), model.hf, DeployedModel(merged, base))
    assert verify.passed
    assert verify.comparison is not None
    assert verify.comparison.effect_ratio < 1e-5
    apart = converter.convert(adapter, tmp_path / "apart.gguf", base=model.gguf, deployment=Deployment("model"))[0].path
    wanted = {tensor.name: tensor.data for tensor in GGUFReader(apart).tensors}
    found = {tensor.name: tensor.data for tensor in GGUFReader(merged).tensors}
    assert found.keys() == wanted.keys()
    for name, values in found.items():
        assert values.tobytes() == wanted[name].tobytes(), name


def _exchanged(lora: Path, spoilt: Path) -> Path:
    """The file with the first two rows of a lora_B in each other's place, where k begins."""
    spoilt.write_bytes(lora.read_bytes())
    written = np.memmap(spoilt, np.uint8, "r+")
    tensor = next(it for it in GGUFReader(lora).tensors if "attn_qkv.weight.lora_b" in it.name)
    rows = written[tensor.data_offset : tensor.data_offset + tensor.n_bytes].reshape(int(tensor.shape[1]), -1)
    rows[[0, 1]] = rows[[1, 0]]
    written.flush()
    return spoilt
