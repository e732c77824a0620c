"""The scale of every pair in a LoRA GGUF, as llama.cpp computes it, against PEFT's formulas written out here."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from converter.conversion import Refused
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.planning.changes import changes_of
from converter.planning.lora import common_alpha
from converter.planning.plan_data import plan_data
from fixtures.generated import Tensor
from tests.rules.specimens import PREFIX, SHAPES, UP, Specimen, lora
from tests.unit.conversion import LORA, convert, tensors_of, values_of, write_base

# Of each config: its changes, the ranks of q_proj, v_proj and down_proj, their scales by PEFT's formula, and whether
# one alpha serves the file.
SCALES: Mapping[str, tuple[dict[str, object], tuple[int, int, int], tuple[float, float, float], bool]] = {
    "alpha": ({"lora_alpha": 32}, (4, 4, 4), (8, 8, 8), True),
    "a negative alpha": ({"lora_alpha": -2}, (4, 4, 4), (-0.5, -0.5, -0.5), True),
    "a fractional alpha": ({"lora_alpha": 0.1}, (4, 4, 4), (0.025, 0.025, 0.025), True),
    "alpha 0": ({"lora_alpha": 0, "alpha_pattern": {"q_proj": 3}}, (4, 4, 4), (0.75, 0, 0), False),
    "rsLoRA": ({"use_rslora": True, "lora_alpha": 3}, (4, 4, 4), (1.5, 1.5, 1.5), True),
    "rsLoRA of two ranks": (
        {"use_rslora": True, "lora_alpha": 3, "rank_pattern": {"q_proj": 2}},
        (2, 4, 4),
        (3 / math.sqrt(2), 1.5, 1.5),
        False,
    ),
    "rsLoRA where a pattern gives alpha": (
        {"use_rslora": True, "lora_alpha": 3, "alpha_pattern": {"q_proj": 5}},
        (4, 4, 4),
        (2.5, 1.5, 1.5),
        False,
    ),
    "one alpha, several ranks": (
        {"lora_alpha": 1, "rank_pattern": {"q_proj": 49, "v_proj": 3}},
        (49, 3, 4),
        (1 / 49, 1 / 3, 0.25),
        True,
    ),
    "two alphas": ({"alpha_pattern": {"v_proj": 5}}, (4, 4, 4), (8, 1.25, 8), False),
    "alpha for the rank": (
        {"lora_alpha": 8, "rank_pattern": {"v_proj": 8}, "alpha_pattern": {"v_proj": 16}},
        (4, 8, 4),
        (2, 2, 2),
        False,
    ),
}


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    return Specimen(tmp_path / "adapter", write_base(tmp_path / "base.gguf"))


def with_ranks(specimen: Specimen, ranks: tuple[int, ...]) -> None:
    specimen.config["target_modules"] = [f"layers.0.{name}" for name in SHAPES]
    specimen.tensors = {}
    for (name, shape), rank in zip(SHAPES.items(), ranks, strict=True):
        specimen.tensors |= lora(f"{PREFIX}.model.layers.0.{name}", *shape, rank=rank)


@pytest.mark.parametrize("case", SCALES)
def test_llama_cpp_scales_as_peft_does(case: str, specimen: Specimen, tmp_path: Path) -> None:
    changes, ranks, scales, one_alpha = SCALES[case]
    specimen.config |= changes
    with_ranks(specimen, ranks)
    file = tmp_path / "lora.gguf"
    convert(specimen, file)
    for name, scale in zip(SHAPES, scales, strict=True):
        stored = {"self_attn.q_proj": "attn_q", "self_attn.v_proj": "attn_v", "mlp.down_proj": "ffn_down"}[name]
        before, after = own_delta(specimen, name), served_delta(file, f"blk.0.{stored}.weight")
        np.testing.assert_allclose(np.sort(after, axis=0), np.sort(scale * before, axis=0), rtol=1e-6, atol=1e-44)
    assert specimen.base
    changed = changes_of(read_adapter(specimen.directory), read_base_model(specimen.base))
    assert (common_alpha(changed) is not None) == one_alpha


def own_delta(specimen: Specimen, name: str) -> np.ndarray:
    """B @ A before any scale."""
    module = f"{PREFIX}.model.layers.0.{name}"
    a, b = (specimen.tensors[f"{module}.lora_{factor}.weight"] for factor in "AB")
    product: np.ndarray = decoded(*b) @ decoded(*a)
    return product


def decoded(_dtype: str, shape: tuple[int, ...], data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float64)


def served_delta(file: Path, tensor: str) -> np.ndarray:
    """What get_scale in llama.cpp's src/llama-adapter.h makes of the file: alpha / rank, or 1 where alpha is 0."""
    alpha = GGUFReader(file).fields["adapter.lora.alpha"].contents()
    a, b = values_of(file, f"{tensor}.lora_a"), values_of(file, f"{tensor}.lora_b")
    scale = alpha / b.shape[1] if alpha else 1.0
    product: np.ndarray = scale * (b @ a)
    return product


def test_without_a_scale_to_fold_factors_keep_their_type(specimen: Specimen, tmp_path: Path) -> None:
    halves = {key: as_f16(*tensor) for key, tensor in specimen.tensors.items()}
    specimen.tensors = halves
    convert(specimen, tmp_path / "kept.gguf")
    assert {t.tensor_type.name for t in tensors_of(tmp_path / "kept.gguf").values()} == {"F16"}
    specimen.config["alpha_pattern"] = {"v_proj": 5}
    convert(specimen, tmp_path / "folded.gguf")
    types = {name[-6:]: tensor.tensor_type.name for name, tensor in tensors_of(tmp_path / "folded.gguf").items()}
    assert types == {"lora_a": "F16", "lora_b": "F32"}


def as_f16(_dtype: str, shape: tuple[int, ...], data: bytes) -> tuple[str, tuple[int, ...], bytes]:
    return "F16", shape, np.frombuffer(data, "<f4").astype("<f2").tobytes()


def test_an_alpha_below_float32_is_none_of_the_file(specimen: Specimen) -> None:
    """It would be rounded; the deltas are none to see then (NM002)."""
    specimen.config["lora_alpha"] = 1e-39
    specimen.write()
    assert specimen.base
    changed = changes_of(read_adapter(specimen.directory), read_base_model(specimen.base))
    assert common_alpha(changed) is None


def test_a_scale_beyond_float32_is_refused(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["lora_alpha"] = 1e300
    with pytest.raises(Refused, match="NM004"):
        convert(specimen, tmp_path / "lora.gguf")
    assert not (tmp_path / "lora.gguf").exists()


def test_alpha_is_the_configs_to_the_bit(specimen: Specimen, tmp_path: Path) -> None:
    specimen.config |= {"lora_alpha": 1, "r": 49}
    with_ranks(specimen, (49, 49, 49))  # 1 / 49 * 49 is not 1
    convert(specimen, tmp_path / "lora.gguf")
    field = GGUFReader(tmp_path / "lora.gguf").fields["adapter.lora.alpha"]
    assert field.parts[-1].tobytes() == struct.pack("<f", 1.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("some/tiny-2b", ("tiny-2b", "some", "https://huggingface.co/some/tiny-2b")),
        ("/home/someone/model", None),
        ("./models/tiny", None),
        ("../tiny", None),
        ("~/tiny", None),
        ("tiny-2b", None),
        ("C:\\models\\tiny", None),
        ("C:\\models/tiny", None),
        ("\ud800/tiny", None),
        ("", None),
        (None, None),
    ],
)
def test_only_a_hub_name_is_told_of_the_base(
    name: str | None, expected: tuple[str, ...] | None, specimen: Specimen, tmp_path: Path
) -> None:
    specimen.config["base_model_name_or_path"] = name
    file = tmp_path / "lora.gguf"
    planned = convert(specimen, file, LORA).plan
    fields = GGUFReader(file).fields
    told = [fields[f"general.base_model.0.{key}"] for key in ("name", "organization", "repo_url") if expected]
    assert tuple(field.contents() for field in told) == (expected or ())
    assert any(key.startswith("general.base_model") for key in fields) == bool(expected)
    assert "/home/someone" not in json.dumps(plan_data(planned))


def bfloat16(shape: tuple[int, ...], smallest: float) -> Tensor:
    """Values with BF16's eight bits of mantissa, the smallest of which is this."""
    values = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    values.flat[0] = smallest
    return "BF16", shape, (values.view("<u4") >> 16).astype("<u2").tobytes()


# 2**-16 * (1 + 127/128) ends at 2**-23, which F16 still has; 2**-20 * (1 + 127/128) ends at 2**-27, which it hasn't.
@pytest.mark.parametrize(("smallest", "type_name"), [(1.9921875 * 2**-16, "F16"), (1.9921875 * 2**-20, "F32")])
def test_no_factor_is_bf16_and_none_loses_a_bit(
    smallest: float, type_name: str, specimen: Specimen, tmp_path: Path
) -> None:
    """llama.cpp rounds what it multiplies with a BF16 tensor to BF16: 1.2e-4 of the effect on a tiny llama."""
    for key, (_, shape, _) in lora(UP, 32, 96).items():
        specimen.tensors[key] = bfloat16(shape, smallest)
    convert(specimen, tmp_path / "lora.gguf")
    for factor in "ab":
        name = f"blk.1.ffn_down.weight.lora_{factor}"
        _, shape, data = specimen.tensors[f"{UP}.lora_{factor.upper()}.weight"]
        wanted = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
        assert tensors_of(tmp_path / "lora.gguf")[name].tensor_type.name == type_name
        np.testing.assert_array_equal(values_of(tmp_path / "lora.gguf", name), wanted)
