"""What an adapter touches is found in a GGUF without a table, or it is said why not."""

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from converter.conversion import Refused, plan, write
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.untabled import with_checkpoint
from converter.diagnostics import Deployment
from converter.errors import ConverterError
from converter.matching.matched import matched
from converter.planning.plan_data import plan_data
from tests.rules.specimens import write_gguf
from tests.unit.matching.nobodys import HIDDEN, N_LAYER, Nobodys, Values, permuted

MODEL = Deployment("model")
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0"]


@pytest.fixture
def nobodys(tmp_path: Path) -> Nobodys:
    it = Nobodys(tmp_path / "nobodys")
    it.add("self_attn.q_proj", "attn_q", HIDDEN, HIDDEN, rewrite=permuted)
    it.add("self_attn.v_proj", "attn_v", 32, HIDDEN)
    it.add("self_attn.o_proj", "attn_output", HIDDEN, HIDDEN)
    return it


def found(it: Nobodys) -> BaseModel:
    return matched(it.adapter(), it.base())


def how(base: BaseModel, layer: int = 0) -> dict[str, str]:
    assert base.match is not None
    own = f"blk.{layer}."
    return {t.tensor.removeprefix(own): t.how for t in base.match.tensors if t.tensor.startswith(own)}


def missing(base: BaseModel) -> dict[str, str]:
    assert base.match is not None
    return {module.removeprefix("model.layers."): why for module, why in base.match.missing.items()}


@pytest.mark.parametrize("outtype", TYPES)
def test_each_matrix_is_found_in_its_order(nobodys: Nobodys, outtype: str) -> None:
    nobodys.outtype = outtype
    base = found(nobodys)
    assert not missing(base)
    for layer in range(N_LAYER):
        assert how(base, layer) == {
            "attn_q.weight": "rows 4 2 8 -> 4 8 2",
            "attn_v.weight": "as it is",
            "attn_output.weight": "as it is",
        }


def test_the_merged_model_has_the_delta_in_that_order(nobodys: Nobodys, tmp_path: Path) -> None:
    adapter, base = nobodys.adapter(), nobodys.base()
    (written,) = write(plan(adapter, base, MODEL), tmp_path / "merged.gguf")
    merged = {t.name: np.array(t.data) for t in GGUFReader(written.path).tensors}
    for layer in range(N_LAYER):
        module = f"model.layers.{layer}.self_attn"
        for name, tensor in (("q_proj", "attn_q"), ("v_proj", "attn_v"), ("o_proj", "attn_output")):
            wanted = nobodys.checkpoint[f"{module}.{name}"] + _delta(adapter, f"{module}.{name}")
            wanted = permuted(wanted) if name == "q_proj" else wanted
            np.testing.assert_allclose(merged[f"blk.{layer}.{tensor}.weight"], wanted, atol=1e-6)


def _delta(adapter: Adapter, module: str) -> Values:
    (pair,) = [pair for pair in adapter.pairs if pair.module == module]
    a, b = (np.fromfile(t.tensor.path, "<f4", t.tensor.n_elements, offset=t.tensor.offset) for t in (pair.a, pair.b))
    delta: Values = pair.scaling * b.reshape(pair.b.tensor.shape) @ a.reshape(pair.a.tensor.shape)
    return delta


def test_the_numbers_of_the_adapter_are_not_asked(nobodys: Nobodys) -> None:
    base = nobodys.base()
    first, second = (matched(nobodys.adapter(seed), base).match for seed in (1, 2))
    assert first == second


@pytest.mark.parametrize("outtype", TYPES)
def test_ranges_columns_stacks_and_transposes_are_found(tmp_path: Path, outtype: str) -> None:
    it = Nobodys(tmp_path / "nobodys", outtype=outtype)
    it.add("mlp.gate_up_proj", "ffn_gate", 2 * 96, HIDDEN, rewrite=lambda values: values[:96])
    for layer in range(N_LAYER):
        fused = it.checkpoint[f"model.layers.{layer}.mlp.gate_up_proj"]
        it.gguf[f"blk.{layer}.ffn_up.weight"] = fused[96:]
    it.add(
        "linear.out_proj", "ssm_out", 32, 96, rewrite=lambda v: v.reshape(32, 2, 3, 16).swapaxes(1, 2).reshape(32, 96)
    )
    it.add(
        "linear.in_proj",
        "ssm_in",
        96,
        HIDDEN,
        rewrite=lambda v: np.vstack([v[:32], v[32:].reshape(2, 32, -1).swapaxes(0, 1).reshape(64, -1)]),
    )
    base = found(it)
    assert not missing(base)
    assert how(base) == {
        "ffn_gate.weight": "rows 2 96 -> 2=0 96",
        "ffn_up.weight": "rows 2 96 -> 2=1 96",
        "ssm_out.weight": "columns 2 3 16 -> 3 2 16",
        "ssm_in.weight": "rows 32 | 2 32 -> 32 2",
    }


# --- What can't be told -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outtype", TYPES)
def test_two_rows_exchanged_are_in_no_order(nobodys: Nobodys, outtype: str) -> None:
    nobodys.outtype = outtype
    nobodys.gguf["blk.1.attn_v.weight"][[3, 20]] = nobodys.gguf["blk.1.attn_v.weight"][[20, 3]]
    assert missing(found(nobodys)) == {
        "1.self_attn.v_proj": "is in blk.1.attn_v.weight: its rows are there, in no order of axes"
    }


@pytest.mark.parametrize("outtype", TYPES)
def test_a_row_that_is_another_one_is_seen(nobodys: Nobodys, outtype: str) -> None:
    nobodys.outtype = outtype
    nobodys.gguf["blk.1.attn_q.weight"][5] *= 1.5
    assert list(missing(found(nobodys))) == ["1.self_attn.q_proj"]


def test_a_bit_of_a_float_is_seen(nobodys: Nobodys) -> None:
    row = nobodys.gguf["blk.0.attn_output.weight"][7]
    row[9] = np.nextafter(row[9], np.float32(1))
    assert list(missing(found(nobodys))) == ["0.self_attn.o_proj"]


@pytest.mark.parametrize("outtype", TYPES)
def test_another_checkpoint_is_refused(nobodys: Nobodys, outtype: str) -> None:
    nobodys.outtype = outtype
    for module in [*nobodys.checkpoint]:
        nobodys.checkpoint[module] = nobodys.checkpoint[module] + np.float32(0.05)
    with pytest.raises(Refused, match=r": BM050$") as refused:
        plan(nobodys.adapter(), nobodys.base(), MODEL)
    assert {finding.where for finding in refused.value.report.stopping} == {*nobodys.checkpoint}


def test_a_module_that_the_checkpoint_lacks_is_told(nobodys: Nobodys) -> None:
    adapter = nobodys.adapter()
    del nobodys.checkpoint["model.layers.1.self_attn.v_proj"]
    assert "is not in the checkpoint nobodys" in missing(matched(adapter, nobodys.base()))["1.self_attn.v_proj"]


def test_a_matrix_that_is_there_twice_is_refused(nobodys: Nobodys) -> None:
    nobodys.gguf["blk.0.attn_v_b.weight"] = nobodys.gguf["blk.0.attn_v.weight"]
    assert missing(found(nobodys)) == {
        "0.self_attn.v_proj": "is in blk.0.attn_v.weight and blk.0.attn_v_b.weight, and nothing tells which is meant"
    }


def test_a_matrix_that_another_layer_has_too_is_refused(nobodys: Nobodys) -> None:
    """One block that llama.cpp's converter wrote into several layers."""
    nobodys.gguf["blk.1.attn_v.weight"] = nobodys.gguf["blk.0.attn_v.weight"]
    adapter = nobodys.adapter()
    del nobodys.checkpoint["model.layers.1.self_attn.v_proj"]
    assert "is in layer 1 of base.gguf, too" in missing(matched(adapter, nobodys.base()))["0.self_attn.v_proj"]


# --- Twins ------------------------------------------------------------------------------------------------------------


def _with_twin(it: Nobodys, layer: int, rows: tuple[int, int] = (3, 12)) -> None:
    values = it.checkpoint[f"model.layers.{layer}.self_attn.q_proj"]
    values[rows[0]] = values[rows[1]]
    it.gguf[f"blk.{layer}.attn_q.weight"] = permuted(values)


@pytest.mark.parametrize("outtype", TYPES)
@pytest.mark.parametrize("n_layers", [1, N_LAYER])
def test_a_row_with_a_twin_is_where_the_order_of_the_others_puts_it(
    nobodys: Nobodys, outtype: str, n_layers: int
) -> None:
    nobodys.outtype = outtype
    for layer in range(n_layers):
        _with_twin(nobodys, layer)
    base = found(nobodys)
    assert not missing(base)
    assert how(base)["attn_q.weight"] == "rows 4 2 8 -> 4 8 2"


def test_what_one_layer_does_not_tell_another_does(nobodys: Nobodys) -> None:
    """All of its rows are alike: any order fits, and the other layer's is its own."""
    values = np.ones((HIDDEN, 1), np.float32) * nobodys.checkpoint["model.layers.0.self_attn.q_proj"][:1]
    nobodys.checkpoint["model.layers.0.self_attn.q_proj"] = nobodys.gguf["blk.0.attn_q.weight"] = values
    base = found(nobodys)
    assert not missing(base)
    assert how(base)["attn_q.weight"] == "rows 4 2 8 -> 4 8 2"


def test_what_no_layer_tells_is_refused(nobodys: Nobodys) -> None:
    for layer in range(N_LAYER):
        values = np.zeros((HIDDEN, HIDDEN), np.float32)
        nobodys.checkpoint[f"model.layers.{layer}.self_attn.q_proj"] = values
        nobodys.gguf[f"blk.{layer}.attn_q.weight"] = values
    why = missing(found(nobodys))
    assert {*why} == {"0.self_attn.q_proj", "1.self_attn.q_proj"}
    assert "have a twin" in why["0.self_attn.q_proj"]


def test_two_matrices_that_are_alike_are_told_by_another_layer(nobodys: Nobodys) -> None:
    nobodys.checkpoint["model.layers.0.self_attn.k_proj"] = nobodys.checkpoint["model.layers.0.self_attn.v_proj"]
    nobodys.gguf["blk.0.attn_k.weight"] = nobodys.gguf["blk.0.attn_v.weight"]
    rng = np.random.default_rng(3)
    other = rng.normal(0, 0.05, (32, HIDDEN)).astype(np.float32)
    nobodys.checkpoint["model.layers.1.self_attn.k_proj"] = nobodys.gguf["blk.1.attn_k.weight"] = other
    assert not missing(found(nobodys))


def test_two_matrices_that_are_alike_everywhere_are_refused(nobodys: Nobodys) -> None:
    for layer in range(N_LAYER):
        nobodys.checkpoint[f"model.layers.{layer}.self_attn.k_proj"] = nobodys.checkpoint[
            f"model.layers.{layer}.self_attn.v_proj"
        ]
        nobodys.gguf[f"blk.{layer}.attn_k.weight"] = nobodys.gguf[f"blk.{layer}.attn_v.weight"]
    assert {name.rpartition(".")[2] for name in missing(found(nobodys))} == {"k_proj", "v_proj"}


# --- The plan ---------------------------------------------------------------------------------------------------------


def test_the_plan_says_where_each_was_found(nobodys: Nobodys) -> None:
    with plan(nobodys.adapter(), nobodys.base(), MODEL) as planned:
        matches = plan_data(planned)["matches"]
    assert isinstance(matches, list)
    assert len(matches) == 3 * N_LAYER
    assert matches[0] == {
        "tensor": "blk.0.attn_q.weight",
        "parameter": "model.layers.0.self_attn.q_proj",
        "how": "rows 4 2 8 -> 4 8 2",
    }


def test_a_lora_file_needs_a_table(nobodys: Nobodys) -> None:
    with pytest.raises(Refused, match=r": BM003$") as refused:
        plan(nobodys.adapter(), nobodys.base(), Deployment("lora"))
    (finding,) = refused.value.report.stopping
    assert "--to model does without" in finding.message


def test_a_missing_layer_is_seen(nobodys: Nobodys) -> None:
    nobodys.touched = tuple(module for module in nobodys.checkpoint if module != "model.layers.1.self_attn.v_proj")
    with pytest.raises(Refused, match="LO021"):
        plan(nobodys.adapter(), nobodys.base(), MODEL)


# --- What can't be compared -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0, HIDDEN), (32, 0), (2, 2, 2, 2), (32,), (1, 32, HIDDEN)])
def test_a_tensor_of_an_odd_shape_is_told(nobodys: Nobodys, shape: tuple[int, ...]) -> None:
    adapter = nobodys.adapter()
    nobodys.checkpoint["model.layers.0.self_attn.v_proj"] = np.ones(shape, np.float32)
    assert [*missing(matched(adapter, nobodys.base()))] == ["0.self_attn.v_proj"]


@pytest.mark.parametrize("fields", [{"layer_replication": [[0, 2], [1, 2]]}, {"peft_type": "IA3"}])
def test_what_numbers_do_not_tell_is_refused(nobodys: Nobodys, fields: dict[str, object]) -> None:
    path = nobodys.adapter().path
    config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    (path / "adapter_config.json").write_text(json.dumps(config | fields), encoding="utf-8")
    assert all("need" in why for why in missing(matched(read_adapter(path), nobodys.base())).values())


def test_a_checkpoint_has_to_be_of_use(nobodys: Nobodys, tmp_path: Path) -> None:
    base = nobodys.base()
    with pytest.raises(ConverterError, match="goes with a GGUF"):
        with_checkpoint(read_base_model(nobodys.directory), nobodys.directory)
    with pytest.raises(ConverterError, match="wanted the Hugging Face directory"):
        with_checkpoint(base, base.path)
    llama = write_gguf(tmp_path / "llama.gguf")
    with pytest.raises(ConverterError, match="llama has a table, which needs no --checkpoint"):
        with_checkpoint(read_base_model(llama), nobodys.directory)
