"""Plans as JSON: what is decided for a tiny llama and gemma3 in each deployment, without a tensor.

``UPDATE_GOLDEN=1 pytest tests/unit/planning`` writes what is planned now; read the diff before you commit it.
"""

import json
import os
from itertools import product
from pathlib import Path

import pytest

from converter.conversion import plan
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.planning.conversion_plan import ConversionPlan
from converter.planning.plan_data import plan_data, plan_digest
from tests.rules.specimens import HEAD, Specimen, base_embedding, embedding_lora, head_lora, write_gguf
from tests.unit.conversion import LORA, MODEL, UNTIED_LORA, UNTIED_MODEL

GOLDENS = Path(__file__).with_name("goldens")
CASES = list(product(("llama", "gemma3"), (LORA, MODEL, UNTIED_LORA, UNTIED_MODEL)))


def planned(architecture: str, deployment: Deployment, directory: Path) -> ConversionPlan:
    """The plan of an adapter that the deployment welcomes: the ends untied where it unties, a tied pair for a model."""
    it = Specimen(directory / "adapter", write_gguf(directory / "base.gguf", architecture))
    if deployment.untie:
        it.tensors |= head_lora() | {f"{HEAD}.base_layer.weight": base_embedding()}
        it.config["use_rslora"] = True
    elif deployment.to == "model":
        it.tensors |= head_lora() | embedding_lora()
        it.config["ensure_weight_tying"] = True
    else:
        it.config |= {"alpha_pattern": {"v_proj": 8}, "base_model_name_or_path": "/home/someone/model"}
    it.write()
    assert it.base
    return plan(read_adapter(it.directory), read_base_model(it.base), deployment)


@pytest.mark.parametrize(("architecture", "deployment"), CASES, ids=lambda it: getattr(it, "kind", it))
def test_a_plan_is_as_before(architecture: str, deployment: Deployment, tmp_path: Path) -> None:
    golden = GOLDENS / f"{architecture}-{deployment.kind}.txt"
    data = plan_data(planned(architecture, deployment, tmp_path))
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(_json(data), encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == _json(data)


def _json(data: dict[str, object]) -> str:
    """One line a tensor, an entry or a line of the ledger."""
    files, ledger = data["files"], data["ledger"]
    assert isinstance(files, list)
    assert isinstance(ledger, list)
    lines = [json.dumps({key: value for key, value in data.items() if key not in ("files", "ledger")})]
    for file in files:
        lines.append(json.dumps({key: value for key, value in file.items() if not isinstance(value, list)}))
        lines += [f"  {json.dumps(entry)}" for key in ("key_values", "tensors") for entry in file[key]]
    return "\n".join([*lines, "ledger", *(f"  {json.dumps(line)}" for line in ledger), ""])


def test_a_plan_depends_on_nothing_but_its_inputs(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    one, other = (planned("llama", UNTIED_MODEL, tmp_path / name) for name in ("here", "there"))
    assert plan_digest(one) == plan_digest(other)


def test_a_digest_tells_what_differs(tmp_path: Path) -> None:
    digests = set()
    scales: tuple[dict[str, object], ...] = (
        {},
        {"lora_alpha": 16},
        {"lora_alpha": 0.5},
        {"alpha_pattern": {"q_proj": 1}},
    )
    changes: tuple[dict[str, object], ...] = (*scales, {"task_type": "FEATURE_EXTRACTION"})
    for change in changes:
        it = Specimen(tmp_path / "adapter", write_gguf(tmp_path / "base.gguf"))
        it.config |= change
        it.write()
        adapter, base = read_adapter(it.directory), read_base_model(tmp_path / "base.gguf")
        digests.add(plan_digest(plan(adapter, base, LORA)))
    assert len(digests) == 4  # task_type changes nothing that is served
