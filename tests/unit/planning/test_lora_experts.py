"""Experts and rows in a LoRA GGUF: each matrix of the file against PEFT's formulas, written out in numpy."""

from pathlib import Path

import numpy as np
import pytest

from fixtures.generated import Tensor
from tests.rules.bad.tokens import with_tokens
from tests.rules.specimens import HEAD, HIDDEN, N_LAYER, PREFIX, RANK, VOCAB, Specimen, lora, write_gguf
from tests.rules.specimens import write_huggingface as write_config
from tests.unit.conversion import UNTIED_LORA, convert, values_of

N_EXPERTS, WIDTH = 3, 24
SCALING = 32 / RANK
DOWN, UP = "blk.1.ffn_down_exps.weight", "blk.1.ffn_up_exps.weight"


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    """Beside a base with experts, which is its config alone."""
    sizes = {"num_experts": N_EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": WIDTH}
    base = write_config(tmp_path / "base", model_type="qwen3_moe", norm_topk_prob=True, **sizes)
    it = Specimen(tmp_path / "adapter", base)
    it.tensors = {}
    return it


def random(*shape: int, seed: int) -> Tensor:
    return "F32", shape, np.random.default_rng(seed).normal(0, 1, shape).astype("<f4").tobytes()


def numbers(stored: Tensor) -> np.ndarray:
    _, shape, data = stored
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float64)


def deltas(path: Path, tensor: str) -> np.ndarray:
    """Of each expert; alpha is 32, and llama.cpp divides by the rank."""
    a, b = values_of(path, f"{tensor}.lora_a"), values_of(path, f"{tensor}.lora_b")
    product: np.ndarray = 32 / a.shape[1] * b @ a
    return product


def test_fused_experts_are_taken_apart(specimen: Specimen, tmp_path: Path) -> None:
    """Rows of lora_A lie expert by expert, columns of lora_B go round them (ParamWrapper.get_delta_weight)."""
    specimen.config |= {"target_modules": None, "target_parameters": ["mlp.experts.down_proj"]}
    for i in range(N_LAYER):
        module = f"{PREFIX}.model.layers.{i}.mlp.experts"
        specimen.tensors[f"{module}.lora_A.weight"] = random(N_EXPERTS * RANK, WIDTH, seed=i)
        specimen.tensors[f"{module}.lora_B.weight"] = random(HIDDEN, N_EXPERTS * RANK, seed=i + 2)
    convert(specimen, tmp_path / "lora.gguf")
    a, b = (numbers(specimen.tensors[f"{PREFIX}.model.layers.1.mlp.experts.lora_{f}.weight"]) for f in "AB")
    each = b.reshape(HIDDEN, RANK, N_EXPERTS)
    wanted = [SCALING * each[:, :, e] @ a[e * RANK : (e + 1) * RANK] for e in range(N_EXPERTS)]
    np.testing.assert_allclose(deltas(tmp_path / "lora.gguf", DOWN), wanted, rtol=1e-5, atol=1e-5)


def test_an_expert_without_a_lora_has_zeros(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["target_modules"] = ["experts.0.up_proj", "experts.2.up_proj"]
    for module in (f"{PREFIX}.model.layers.{i}.mlp.experts.{e}.up_proj" for i in range(N_LAYER) for e in (2, 0)):
        specimen.tensors |= lora(module, WIDTH, HIDDEN)
        specimen.tensors[f"{module}.lora_A.weight"] = random(RANK, HIDDEN, seed=int(module[-9]))
    convert(specimen, tmp_path / "lora.gguf")
    wanted = np.zeros((N_EXPERTS, WIDTH, HIDDEN))
    for e in (0, 2):
        module = f"{PREFIX}.model.layers.1.mlp.experts.{e}.up_proj"
        a, b = (numbers(specimen.tensors[f"{module}.lora_{factor}.weight"]) for factor in "AB")
        wanted[e] = SCALING * b @ a
    np.testing.assert_allclose(deltas(tmp_path / "lora.gguf", UP), wanted, rtol=1e-5, atol=1e-5)


def test_rows_that_are_padding_stay_behind(tmp_path: Path) -> None:
    """llama.cpp refuses a LoRA that is larger than its tensor."""
    write_gguf(tmp_path / "tied.gguf")
    it = Specimen(tmp_path / "adapter", None)
    with_tokens(it, tmp_path)
    it.tensors |= lora(HEAD, VOCAB + 16, HIDDEN)
    convert(it, tmp_path / "both", UNTIED_LORA)
    written = values_of(tmp_path / "both" / "lora.gguf", "output.weight.lora_b")
    assert np.array_equal(written, numbers(it.tensors[f"{HEAD}.lora_B.weight"])[:VOCAB])
