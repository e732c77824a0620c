"""The ledger is a partition: every tensor key and config field of an adapter in exactly one line, or the run fails."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from converter.conversion import Refused, plan
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.planning.conversion import plan_conversion
from converter.planning.conversion_plan import ConversionPlan
from converter.planning.ledger import LedgerGapError
from converter.sources import keys_of
from tests.rules.specimens import (
    EMBEDDING,
    HEAD,
    Specimen,
    all_linear,
    base_embedding,
    embedding_lora,
    head_lora,
    write_gguf,
)
from tests.unit.conversion import LORA, MODEL, UNTIED_LORA, UNTIED_MODEL

MODULES = sorted({key.rsplit(".lora_", 1)[0] for key in all_linear()})
HARMLESS = {"note": None, "future_field": False, "lora_dropout": 0.05, "revision": "main", "use_dora": False}
BASE_LAYERS = {f"{HEAD}.base_layer.weight": base_embedding(), f"{EMBEDDING}.base_layer.weight": base_embedding()}

linear = st.sets(st.sampled_from(MODULES), min_size=1)
fields = st.sets(st.sampled_from(sorted(HARMLESS)))
scales = st.sampled_from([{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3}}, {"lora_alpha": 0.5}])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("base") / "base.gguf")


def subset(directory: Path, base: Path, modules: set[str], extra: set[str], scale: dict[str, object]) -> Specimen:
    tensors = {key: value for key, value in all_linear().items() if key.rsplit(".lora_", 1)[0] in modules}
    it = Specimen(directory, base, tensors=tensors)
    it.config["target_modules"] = sorted(module.removeprefix("base_model.model.") for module in modules)
    it.config |= {name: HARMLESS[name] for name in extra} | scale
    return it


def planned(it: Specimen, deployment: Deployment) -> ConversionPlan:
    it.write()
    assert it.base
    return plan(read_adapter(it.directory), read_base_model(it.base), deployment)


def assert_partition(it: Specimen, found: ConversionPlan) -> None:
    with safe_open(it.weights, framework="np") as file:
        keys = [("tensor", key) for key in file.keys()]  # noqa: SIM118  not a dict
    config = [("config", name) for name in json.loads(it.config_path.read_text(encoding="utf-8"))]
    assert Counter((line.kind, line.key) for line in found.ledger) == Counter([*keys, *config])
    used = {key for file in found.files for tensor in file.tensors for key in keys_of(tensor.source)}
    applied = {line.key for line in found.ledger if line.kind == "tensor" and line.fate != "redundant"}
    assert applied == used & {key for _, key in keys}


anything = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@anything
@given(modules=linear, extra=fields, scale=scales, deployment=st.sampled_from([LORA, MODEL, UNTIED_MODEL]))
def test_any_subset_is_partitioned(
    *, modules: set[str], extra: set[str], scale: dict[str, object], deployment: Deployment, tmp_path: Path, base: Path
) -> None:
    it = subset(tmp_path / "adapter", base, modules, extra, scale)
    assert_partition(it, planned(it, deployment))


@anything
@given(
    modules=linear,
    ends=st.sampled_from(["head", "embedding", "both", "pair"]),
    base_layers=st.sets(st.sampled_from(sorted(BASE_LAYERS))),
    deployment=st.sampled_from([UNTIED_LORA, UNTIED_MODEL]),
)
def test_the_ends_are_in_it_too(
    *, modules: set[str], ends: str, base_layers: set[str], deployment: Deployment, tmp_path: Path, base: Path
) -> None:
    it = subset(tmp_path / "adapter", base, modules, set(), {"ensure_weight_tying": ends == "pair"})
    it.tensors |= head_lora() if ends != "embedding" else {}
    it.tensors |= embedding_lora() if ends != "head" else {}
    modules_here = {key.rsplit(".lora_", 1)[0] for key in it.tensors}
    it.config["target_modules"] = sorted(module.removeprefix("base_model.model.") for module in modules_here)
    it.tensors |= {
        key: BASE_LAYERS[key] for key in base_layers if key.removesuffix(".base_layer.weight") in modules_here
    }
    assert_partition(it, planned(it, deployment))


@anything
@given(modules=linear, key=st.sampled_from(["stray", f"{HEAD}.lora_C.weight", MODULES[0], f"{MODULES[0]}.lora_A.bias"]))
def test_a_key_that_no_line_has_fails_the_run(modules: set[str], key: str, tmp_path: Path, base: Path) -> None:
    it = subset(tmp_path / "adapter", base, modules, set(), {})
    it.tensors[key] = base_embedding()
    with pytest.raises(Refused, match="LO004"):
        planned(it, LORA)
    # And where no rule had seen it, the ledger would.
    with pytest.raises(LedgerGapError, match=f"{key} is in no line"):
        plan_conversion(read_adapter(it.directory), read_base_model(base), LORA)


def test_a_factor_without_its_partner_is_no_line(tmp_path: Path, base: Path) -> None:
    it = Specimen(tmp_path / "adapter", base)
    del it.tensors[f"{MODULES[0]}.lora_B.weight"]
    it.write()
    with pytest.raises(LedgerGapError, match=r"lora_A\.weight is in no line"):
        plan_conversion(read_adapter(it.directory), read_base_model(base), MODEL)


@anything
@given(name=st.text(min_size=1, max_size=12), value=st.sampled_from([0, 1, True, "x", [0], {"a": None}]))
def test_an_unknown_field_with_a_value_is_refused(name: str, value: object, tmp_path: Path, base: Path) -> None:
    it = Specimen(tmp_path / "adapter", base)
    it.config[f"x_{name}"] = value
    with pytest.raises(Refused, match="CF004"):
        planned(it, LORA)


def test_what_is_folded_is_said(tmp_path: Path, base: Path) -> None:
    it = Specimen(tmp_path / "adapter", base)
    it.config["alpha_pattern"] = {"q_proj": 3}
    fates = {line.key: line.fate for line in planned(it, LORA).ledger}
    assert [fates[field] for field in ("lora_alpha", "alpha_pattern", "r")] == ["folded", "folded", "applied"]
    assert {fate for key, fate in fates.items() if "lora_B" in key} == {"folded"}
    assert {fate for key, fate in fates.items() if "lora_A" in key} == {"applied"}
