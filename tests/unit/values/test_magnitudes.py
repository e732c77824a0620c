"""How far DoRA's magnitudes follow the norms of a base's rows, in the order and the layout that each base has."""

from pathlib import Path

import numpy as np
import pytest

from converter.derive.adapter import LoraPair, read_adapter
from converter.derive.base_model import read_base_model
from converter.values.magnitudes import agreement
from fixtures.generated import write_safetensors
from fixtures.tiny import TinyModel, random_model
from tests.rules.bad.wrong_bases import give_magnitudes
from tests.rules.specimens import HIDDEN, PREFIX, Specimen, codes, lora, tensor, write_gguf


def dora_pairs(directory: Path, name: str, trained: float = 0.0) -> tuple[LoraPair, ...]:
    """Magnitudes of the norms that a tiny model has for torch, moved by training as much as said."""
    model, rng = random_model(name, tied=True), np.random.default_rng(0)
    it = Specimen(directory, None)
    it.config["use_dora"], it.tensors = True, {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() != 2 or not any(part.isdigit() for part in path.split(".")):
            continue
        matrix = weight.detach().numpy().T if type(module).__name__ == "Conv1D" else weight.detach().numpy()
        norms = np.linalg.norm(matrix, axis=1) * (1 + trained * rng.normal(size=len(matrix)))
        prefix = f"base_model.model.{path}"
        it.tensors |= lora(prefix, *matrix.shape)
        it.tensors[f"{prefix}.lora_magnitude_vector"] = ("F32", norms.shape, norms.astype("<f4").tobytes())
    it.write()
    return read_adapter(directory).pairs


@pytest.mark.parametrize("form", ["hf", "gguf"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_untrained_magnitudes_are_the_norms(name: str, form: str, tmp_path: Path) -> None:
    pairs = dora_pairs(tmp_path, name)
    assert agreement(pairs, read_base_model(getattr(TinyModel(name), form))) == pytest.approx(1, abs=1e-5)


def test_trained_ones_follow_them(tmp_path: Path) -> None:
    pairs = dora_pairs(tmp_path, "llama", trained=0.02)
    found = agreement(pairs, read_base_model(TinyModel("llama", outtype="Q8_0").gguf))
    assert found is not None
    assert found > 0.9


def test_another_models_do_not(tmp_path: Path) -> None:
    pairs = dora_pairs(tmp_path, "llama")
    found = agreement(pairs, read_base_model(write_other_llama(tmp_path / "other")))
    assert found is not None
    assert abs(found) < 0.15


def write_other_llama(directory: Path) -> Path:
    """The tiny llama's config beside other weights."""
    directory.mkdir()
    base = read_base_model(TinyModel("llama").hf)
    (directory / "config.json").write_bytes((base.path / "config.json").read_bytes())
    rng = np.random.default_rng(5)
    tensors = {
        name: ("F32", stored.shape, rng.normal(size=stored.shape).astype("<f4").tobytes())
        for name, stored in base.tensors.items()
    }
    write_safetensors(directory / "model.safetensors", tensors)
    return directory


def test_rows_of_one_length_tell_nothing(tmp_path: Path) -> None:
    it = Specimen(tmp_path / "adapter", None)
    give_magnitudes(it, write_gguf(tmp_path / "base.gguf", seed=1))
    it.write()
    assert agreement(read_adapter(it.directory).pairs, read_base_model(write_gguf(tmp_path / "ones.gguf"))) is None


@pytest.mark.parametrize("n", [1024, 1500, 2047, 2049])
def test_magnitudes_of_another_number_say_nothing(n: int, tmp_path: Path) -> None:
    """The first 1,024 rows are looked at, and the order of q_proj goes over all of them."""
    base = write_gguf(tmp_path / "base.gguf", head_dim=512, seed=1)
    it, module = Specimen(tmp_path / "adapter", base), f"{PREFIX}.model.layers.0.self_attn.q_proj"
    it.config |= {"use_dora": True, "target_modules": ["q_proj"]}
    it.tensors = lora(module, 2048, HIDDEN) | {f"{module}.lora_magnitude_vector": tensor(n)}
    it.write()
    assert agreement(read_adapter(it.directory).pairs, read_base_model(base)) is None
    assert "LO016" in codes(it.report())
