"""A GGUF whose q, k and v are one tensor is read as the three; where they can't be told they are missing."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

import converter
from converter.derive.base_model import read_base_model
from converter.derive.fused_gguf import taken_apart
from converter.diagnostics import Deployment
from converter.read.gguf_header import read_gguf_header
from fixtures.fused_gguf import fused
from tests.rules.specimens import HIDDEN, Specimen, codes, write_gguf

QKV = "blk.0.attn_qkv.weight"
OUTPUT = ("attn_output", (HIDDEN, 64))


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    """An adapter on q, v and down_proj, beside a fused base."""
    apart = write_gguf(tmp_path / "apart.gguf", seed=5, more=(("attn_k", (32, HIDDEN)), OUTPUT))
    specimen = Specimen(tmp_path / "adapter", fused(apart, tmp_path / "fused.gguf"))
    specimen.write()
    return specimen


def test_each_part_is_where_its_rows_are(specimen: Specimen, tmp_path: Path) -> None:
    apart, base = read_base_model(tmp_path / "apart.gguf"), read_base_model(tmp_path / "fused.gguf")
    assert sum(part.n_rows for part in base.fused[QKV]) == 128
    assert base.tensors.keys() == apart.tensors.keys()
    for name, stored in base.tensors.items():
        other = apart.tensors[name]
        assert (stored.shape, stored.dtype) == (other.shape, other.dtype)
        assert stored.holds_the_bytes_of(other), name
    assert codes(specimen.report()) == []


def test_a_lora_of_some_parts_is_zero_for_the_others(specimen: Specimen, tmp_path: Path) -> None:
    converter.convert(specimen.directory, tmp_path / "lora.gguf", base=tmp_path / "fused.gguf")
    converter.convert(specimen.directory, tmp_path / "apart-lora.gguf", base=tmp_path / "apart.gguf")
    one = {tensor.name: np.array(tensor.data) for tensor in GGUFReader(tmp_path / "lora.gguf").tensors}
    three = {tensor.name: np.array(tensor.data) for tensor in GGUFReader(tmp_path / "apart-lora.gguf").tensors}
    delta = one[f"{QKV}.lora_b"].astype(np.float64) @ one[f"{QKV}.lora_a"]
    # The file has one alpha: the rank of the joined factors is twice that of one.
    of_parts = {
        stem: 2 * three[f"blk.0.{stem}.weight.lora_b"].astype(np.float64) @ three[f"blk.0.{stem}.weight.lora_a"]
        for stem in ("attn_q", "attn_v")
    }
    alphas = [
        float(GGUFReader(tmp_path / name).fields["adapter.lora.alpha"].contents())
        for name in ("lora.gguf", "apart-lora.gguf")
    ]
    scale = alphas[0] / alphas[1]
    np.testing.assert_allclose(scale * delta[:64], of_parts["attn_q"], rtol=1e-6)
    np.testing.assert_allclose(scale * delta[96:], of_parts["attn_v"], rtol=1e-6)
    assert not delta[64:96].any()


def test_the_base_of_a_head_has_the_parts_and_so_has_its_lora(specimen: Specimen, tmp_path: Path) -> None:
    converter.convert(
        specimen.directory, tmp_path / "both", base=tmp_path / "fused.gguf", deployment=Deployment.of("untie-lora")
    )
    names = {tensor.name for path in (tmp_path / "both").iterdir() for tensor in GGUFReader(path).tensors}
    assert {"blk.0.attn_q.weight", "blk.0.attn_q.weight.lora_a"} <= names
    assert not any("attn_qkv" in name for name in names)


def test_a_tensor_without_dimensions_is_left(specimen: Specimen) -> None:
    assert specimen.base
    apart = read_base_model(specimen.base)
    bare = read_gguf_header(specimen.base)
    bare = bare._replace(tensors=tuple(tensor._replace(shape=()) for tensor in bare.tensors))
    assert apart.architecture
    shards, fused = taken_apart((bare,), apart.architecture, lambda _: apart.dims)
    assert (shards, fused) == ((bare,), {})


def test_rows_that_are_not_those_of_its_parts_are_none(specimen: Specimen, tmp_path: Path) -> None:
    apart = write_gguf(tmp_path / "odd.gguf", seed=5, more=(("attn_k", (16, HIDDEN)), OUTPUT))
    specimen.base = fused(apart, tmp_path / "odd-fused.gguf")
    assert read_base_model(specimen.base).fused == {}
    assert specimen.report().blockers("model")
