"""Hosts without llama.cpp: sizes of the real models, layouts, when a head is low-rank, and what a plan says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converter.cli.to_gguf import main
from converter.conversion import plan
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.dtypes import BF16, F16, F32, GGML_BY_NAME, Q8_0
from converter.errors import ConverterError
from converter.planning.conversion_plan import ConversionPlan, NewKeyValue, PlannedFile, PlannedTensor
from converter.planning.plan_data import plan_digest
from converter.planning.rehost import grok, wide
from converter.planning.rehost.gemma import Gemma
from converter.planning.rehost.head_delta import head_delta, rank_of
from converter.planning.rehost.hosting import hosted_model
from converter.planning.rehost.layout import Axis, Layout, named, padded, relaid
from converter.read.stored import StoredTensor
from converter.sources import CopiedBytes, Given, Piece, Placed, Product, StoredRows, has_delta
from converter.writing.blocks import DeltaKept, blocks
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel


def gemma2(*sizes: int) -> Gemma:
    n_layer, n_head, n_head_kv, head_dim, hidden, ffn = sizes
    return Gemma("gemma2", n_layer, n_head, n_head_kv, head_dim, hidden, ffn, 256000, 1e-6, 1e4, 8192, 4096)


GEMMA2_2B = gemma2(26, 8, 4, 256, 2304, 9216)
GEMMA2_9B = gemma2(42, 16, 8, 256, 3584, 14336)
GEMMA2_27B = gemma2(46, 32, 16, 128, 4608, 36864)


def planned(name: str, recipe: str, host: str, outtype: str | None = None) -> ConversionPlan:
    base = TinyModel(name)
    deployment = Deployment("model", True, outtype, host)
    return plan(read_adapter(tiny_adapter(recipe, base)), read_base_model(base.gguf), deployment)


# --- Heads and widths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gemma", "n_head", "n_head_kv"), [(GEMMA2_2B, 9, 9), (GEMMA2_9B, 16, 8), (GEMMA2_27B, 36, 18)]
)
def test_grok_has_the_fewest_heads_that_fill_the_hidden_size(gemma: Gemma, n_head: int, n_head_kv: int) -> None:
    heads = grok.heads_of(gemma)
    assert (heads.n_head, heads.n_head_kv) == (n_head, n_head_kv)
    assert n_head * gemma.head_dim >= gemma.hidden


@pytest.mark.parametrize("gemma", [GEMMA2_2B, GEMMA2_9B, GEMMA2_27B, gemma2(2, 4, 2, 32, 160, 96)])
def test_each_query_head_finds_its_own_key_head(gemma: Gemma) -> None:
    heads = grok.heads_of(gemma)
    assert len(set(heads.queries)) == gemma.n_head
    for query, slot in enumerate(heads.queries):
        key = heads.keys[slot // (heads.n_head // heads.n_head_kv)]
        assert key == query // (gemma.n_head // gemma.n_head_kv)


@pytest.mark.parametrize("rank", [1, 16, 32, 33, 160, 192, 224])
@pytest.mark.parametrize("gemma", [GEMMA2_2B, GEMMA2_9B, replace(GEMMA2_2B, architecture="gemma", hidden=2048)])
def test_a_wide_row_has_room_and_is_no_whole_number_of_k_quant_blocks(gemma: Gemma, rank: int) -> None:
    width = wide.width_of(gemma, rank)
    assert width >= gemma.hidden + rank + 32
    assert width % 32 == 0
    assert width % 256


def test_the_units_of_a_large_rank_have_no_room() -> None:
    assert wide.fits(GEMMA2_2B, 4096)
    assert not wide.fits(GEMMA2_2B, 4608)
    assert not wide.fits(GEMMA2_2B, 0)


# --- Layouts ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> PlannedTensor:
    values = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    values.tofile(tmp_path / "values")
    tensor = StoredTensor(tmp_path / "values", 0, 32, (4, 2), "F32")
    return PlannedTensor("blk.0.attn_q.weight", (4, 2), F32, CopiedBytes("q", tensor))


def values_of(tensor: PlannedTensor, n_elements: int = 1 << 17) -> np.ndarray:
    data = b"".join(bytes(block) for block in blocks(tensor, DeltaKept(tensor.name), n_elements))
    return np.frombuffer(data, np.float32).reshape(tensor.shape)


@pytest.mark.parametrize("n_elements", [1, 4, 1 << 17])
def test_rows_and_columns_move_and_the_rest_is_zero(stored: PlannedTensor, n_elements: int) -> None:
    rows = Axis(6, ((0, 2, 4), (2, 2, 0)))
    laid = relaid(stored, Layout(rows=rows, columns=padded(2, 3), factor=2.0), None)
    expected = [[10, 12, 0], [14, 16, 0], [0, 0, 0], [0, 0, 0], [2, 4, 0], [6, 8, 0]]
    assert values_of(laid, n_elements).tolist() == expected


def test_an_identity_stays_a_copy(stored: PlannedTensor) -> None:
    assert relaid(stored, Layout(rows=padded(4, 4), columns=padded(2, 2)), None) is stored


def test_a_bias_follows_rows_alone(tmp_path: Path) -> None:
    np.arange(4, dtype=np.float32).tofile(tmp_path / "bias")
    source = CopiedBytes("b", StoredTensor(tmp_path / "bias", 0, 16, (4,), "F32"))
    bias = PlannedTensor("blk.0.attn_q.bias", (4,), F32, source)
    laid = relaid(bias, Layout(rows=Axis(5, ((0, 4, 1),)), columns=padded(2, 3)), None)
    assert values_of(laid).tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("n_elements", [1, 3, 1 << 17])
def test_a_product_streams_its_matrix(stored: PlannedTensor, n_elements: int) -> None:
    assert isinstance(stored.source, CopiedBytes)
    left = Given.of([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, -1.0]])
    weights = Given.of([[1.0], [2.0], [3.0], [4.0]])
    product = Product(left, weights, StoredRows("q", stored.source.tensor))
    placed = Placed((3, 2), (Piece(product, (1, 0), (0, 2), (0, 2)),))
    expected = left_values() @ np.diag([1, 2, 3, 4]) @ np.arange(1, 9).reshape(4, 2)
    laid = PlannedTensor("x", (3, 2), F32, placed)
    assert not has_delta(placed)
    assert values_of(laid, n_elements).tolist() == [[0, 0], *expected.tolist()]


def left_values() -> np.ndarray:
    return np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, -1.0]])


@pytest.mark.parametrize(
    ("stored_as", "factor", "outtype", "written"),
    [
        (BF16, 1.0, None, BF16),
        (BF16, 2.0, None, BF16),
        (BF16, 3.0, None, F16),
        (BF16, 3.0, "as-base", BF16),
        (Q8_0, 1.0, None, Q8_0),
        (GGML_BY_NAME["Q4_K"], 1.0, None, Q8_0),
        (GGML_BY_NAME["Q4_K"], 1.0, "f16", F16),
    ],
)
def test_untouched_values_keep_their_type_where_they_can(
    stored_as: object, factor: float, outtype: str | None, written: object, tmp_path: Path
) -> None:
    tensor = StoredTensor(tmp_path, 0, 0, (4, 256), getattr(stored_as, "name", ""))
    original = PlannedTensor("blk.0.ffn_up.weight", (4, 256), stored_as, CopiedBytes("x", tensor))  # type: ignore[arg-type]  # parametrized
    assert relaid(original, Layout(columns=padded(256, 288), factor=factor), outtype).type == written


def test_names_come_apart_and_together() -> None:
    for name in ("token_embd.weight", "blk.3.attn_q.weight.lora_a", "output.weight.lora_b", "blk.0.attn_q.bias"):
        assert str(named(name)) == name
    assert named("blk.12.ffn_down.weight").layer == 12


# --- Which head is low-rank -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "rank"),
    [
        ("lm_head", 8),
        ("lm_head_without_base_layer", 8),
        ("embed_tokens", 8),
        ("embed_and_head", 16),
        ("foreign_base_layer", None),
        ("saved_lm_head", None),
        ("saved_embed_tokens", None),
        ("plain", 0),
    ],
)
def test_a_head_is_low_rank_where_factors_are_all_it_differs_by(recipe: str, rank: int | None) -> None:
    delta = head_delta(planned("gemma2", recipe, "native").files[0])
    assert (rank_of(delta) if delta is not None else None) == rank


# --- What a plan says -------------------------------------------------------------------------------------------------


def text_of(file: PlannedFile, key: str) -> object:
    return next(entry.value for entry in file.key_values if isinstance(entry, NewKeyValue) and entry.key == key)


def test_a_plan_says_how_it_is_hosted_and_at_what_cost() -> None:
    conversion = planned("gemma2", "saved_lm_head", "auto")
    assert text_of(conversion.files[0], "adapter_to_gguf.host") == "grok"
    assert text_of(conversion.files[0], "adapter_to_gguf.host.oldest_build") == "b6628"
    assert any("b6628" in note and "times the KV cache" in note for note in conversion.notes)
    assert any("the context ends at 8 tokens" in note for note in conversion.notes)


def test_the_same_plan_has_the_same_digest() -> None:
    assert plan_digest(planned("gemma2", "lm_head", "wide")) == plan_digest(planned("gemma2", "lm_head", "wide"))


def test_an_outlier_among_the_embeddings_is_told(tmp_path: Path) -> None:
    base = TinyModel("gemma2")
    data = bytearray(base.gguf.read_bytes())
    embedding = read_base_model(base.gguf).shards[0].by_name["token_embd.weight"]
    row = np.frombuffer(data, np.float32, 64, embedding.offset) * 20
    data[embedding.offset : embedding.offset + 256] = row.tobytes()
    (tmp_path / "base.gguf").write_bytes(data)
    adapter = read_adapter(tiny_adapter("lm_head_without_base_layer", base))
    conversion = plan(adapter, read_base_model(tmp_path / "base.gguf"), Deployment("model", True, None, "wide"))
    assert any("times as long as usual" in note for note in conversion.notes)


def test_a_host_needs_untie(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [str(tmp_path), "--host", "wide"])
    assert result.exit_code == 2
    assert "--host needs --untie" in result.output


def test_a_base_without_an_epsilon_is_refused() -> None:
    base = TinyModel("gemma")
    file = planned("gemma", "lm_head", "native").files[0]
    entries = tuple(entry for entry in file.key_values if "epsilon" not in entry.key)
    with pytest.raises(ConverterError, match="epsilon"):
        hosted_model(file._replace(key_values=entries), read_base_model(base.gguf), "auto", None)
