"""A GGUF whose table is taken away, merged by what comparing it with its checkpoint finds: exact in real llama.cpp.

What is found has to be what the table says, of every architecture that has one; the proof needs no table either.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converter.cli.to_gguf import main
from converter.conversion import Refused, plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.diagnostics import Deployment
from converter.errors import ConverterError
from converter.matching.matched import matched
from converter.orders import Order
from converter.values.orders import indices
from converter.verification.llama_cpp import LlamaCpp
from converter.verification.verification import Case, DeployedModel, prove
from fixtures.more_adapters import SEQUENCES, more_adapter
from fixtures.more_models import KINDS, MoreModel
from fixtures.real import SMOLLM2
from fixtures.train import trained_adapter
from fixtures.untabled import no_tables, read_untabled
from tests.e2e.requantised import requantised
from tests.unit.schemas import faults

pytestmark = pytest.mark.llama

# One of each rewrite: heads' halves, parts of a fused tensor, columns, stacks of heads turned round, turned experts.
USUAL = {("ministral3", False), ("qwen3next", False), ("qwen35", False), ("deepseek2", False), ("gpt-oss", True)}
CASES = [
    (name, experts) for name, kind in KINDS.items() for experts in ((False, True) if kind.has_experts else (False,))
]
# Refused: what transformers 5 calls otherwise than checkpoints do, and is no expert; what GGUF has times other numbers.
REFUSED = {("hy_v3", False), ("falcon-h1", False)}
MODEL = Deployment("model")


@pytest.mark.parametrize(
    ("name", "on_experts"),
    [
        case if case in USUAL else pytest.param(*case, marks=pytest.mark.thorough)
        for case in CASES
        if case not in REFUSED
    ],
)
def test_it_is_merged_and_proven_without_a_table(
    name: str, on_experts: bool, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    model = MoreModel(name)
    adapter, base = read_adapter(more_adapter(model, on_experts=on_experts)), read_untabled(model.gguf, model.hf)
    with no_tables(), plan(adapter, base, MODEL) as planned:
        (written,) = write(planned, tmp_path / "merged.gguf")
        proven = prove(Case(adapter, model.hf, DeployedModel(written.path, model.gguf), SEQUENCES), llama_cpp)
        alone = prove(Case(adapter, model.hf, DeployedModel(model.gguf, model.gguf), SEQUENCES), llama_cpp)
    assert not list(proven.failures)
    assert proven.comparison is not None
    assert proven.comparison.effect > 1e-3
    assert proven.comparison.effect_ratio < model.kind.ratio
    touched = {check.tensor for check in proven.tensors.checks if check.touched}
    assert touched == {check.tensor for check in alone.tensors.checks if check.fault}
    _assert_same_places(planned.base, read_base_model(model.gguf), adapter.modules)


def _assert_same_places(found: BaseModel, tabled: BaseModel, modules: tuple[str, ...]) -> None:
    """Tensors, orders, experts and turns."""
    for module in modules:
        assert sorted(_facts(found, module)) == sorted(_facts(tabled, module)), module


def _facts(base: BaseModel, module: str) -> list[str]:
    facts = []
    for place in base.places(module):
        dims, orders = base.dims_of(module), base.orders(place)
        rows = _moved(orders.rows, dims[place.shape[-2:][0]])
        columns = _moved(orders.columns, dims[place.shape[-1]])
        facts.append(f"{place.tensor} {rows} {columns} {place.transposed} {place.expert} {place.stacked} {place.add}")
    return facts


def _moved(order: Order, n: int) -> list[int]:
    """The order as numbers; none where all stay where they are."""
    found: list[int] = indices(order, n).tolist() if order.runs else []
    return found if found != list(range(n)) else []


@pytest.mark.parametrize("name", [name for name, _ in sorted(REFUSED)])
def test_what_no_comparison_finds_is_refused(name: str) -> None:
    model = MoreModel(name)
    with no_tables(), pytest.raises(Refused, match=r": BM050$"):
        plan(read_adapter(more_adapter(model)), read_untabled(model.gguf, model.hf), MODEL)


def test_the_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    """It has every name, and every shape."""
    model, other = MoreModel("ministral3"), MoreModel("internlm3")
    base = read_untabled(model.gguf, other.hf)
    with no_tables(), pytest.raises(Refused, match=r": BM050$") as refused:
        plan(read_adapter(more_adapter(model)), base, MODEL)
    adapter = read_adapter(more_adapter(model))
    assert {finding.where for finding in refused.value.report.stopping} == {*adapter.modules}
    assert not list(tmp_path.iterdir())


def test_a_proof_without_the_base_says_what_it_needs(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    model = MoreModel("ministral3")
    adapter = read_adapter(more_adapter(model))
    with no_tables(), plan(adapter, read_untabled(model.gguf, model.hf), MODEL) as planned:
        (written,) = write(planned, tmp_path / "merged.gguf")
        with pytest.raises(ConverterError, match="give the GGUF that it was made from as --base-gguf"):
            prove(Case(adapter, model.hf, DeployedModel(written.path), SEQUENCES), llama_cpp)


def test_the_command_says_line_by_line_what_it_found() -> None:
    model = MoreModel("ministral3")
    options = [str(more_adapter(model)), "--base", str(model.gguf), "--checkpoint", str(model.hf), "--to", "model"]
    with no_tables():
        text = CliRunner().invoke(main, [*options, "--dry-run"], catch_exceptions=False)
        data = CliRunner().invoke(main, [*options, "--dry-run", "--format", "json"], catch_exceptions=False)
    assert text.exit_code == data.exit_code == 0
    line = "blk.2.attn_q.weight                          model.layers.2.self_attn.q_proj: rows 4 2 12 -> 4 12 2"
    assert line in text.stdout
    assert not faults("conversion", json.loads(data.stdout))
    matches = json.loads(data.stdout)["plan"]["matches"]
    assert len(matches) == len({match["tensor"] for match in matches}) == 21


@pytest.mark.model
@pytest.mark.parametrize(
    "file_type",
    ["packaged", *(pytest.param(it, marks=pytest.mark.thorough) for it in ("F16", "Q8_0", "Q6_K", "Q4_K_M"))],
)
def test_every_row_of_a_real_model_is_found(file_type: str, tmp_path: Path) -> None:
    """Of 41,472 rows of q and k 102 have another one that is alike but for a tenth."""
    gguf = SMOLLM2.packaged_gguf
    if file_type != "packaged":
        gguf = requantised(SMOLLM2.bf16_gguf, tmp_path / f"{file_type}.gguf", file_type)
    adapter = read_adapter(trained_adapter("lm_head", SMOLLM2))
    found = matched(adapter, read_untabled(gguf, SMOLLM2.hf))
    assert found.match is not None
    assert not found.match.missing
    assert len(found.match.tensors) == 212  # both ends are one tensor
    _assert_same_places(found, read_base_model(gguf), adapter.modules)


@pytest.mark.model
def test_a_row_of_a_real_model_that_is_exchanged_is_seen(tmp_path: Path) -> None:
    gguf = tmp_path / "exchanged.gguf"
    data = bytearray(SMOLLM2.packaged_gguf.read_bytes())
    shards = read_base_model(SMOLLM2.packaged_gguf).shards
    tensor = next(tensor for tensor in shards[0].tensors if tensor.name == "blk.7.attn_k.weight")
    width = tensor.nbytes // tensor.shape[0]
    rows = np.frombuffer(data, np.uint8, tensor.nbytes, tensor.offset).reshape(-1, width)
    rows[[30, 31]] = rows[[31, 30]]
    gguf.write_bytes(data)
    match = matched(read_adapter(trained_adapter("lm_head", SMOLLM2)), read_untabled(gguf, SMOLLM2.hf)).match
    assert match is not None
    assert [*match.missing] == ["model.layers.7.self_attn.k_proj"]
