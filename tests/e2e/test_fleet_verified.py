"""adapter-fleet --verify: real llama.cpp against PEFT for each output; what isn't proven is neither fine nor pushed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from converter.conversion import Written, plan, write
from converter.derive.adapter import read_adapter
from converter.errors import FINE, JUDGED_BAD
from converter.fleet import outputs
from converter.fleet.task import Outcome, Task
from converter.planning.conversion_plan import ConversionPlan
from converter.read.hub_address import hub_address
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel
from tests.unit.fleet.small_fleet import Serial, hub_of_this_process, run_fleet, write_manifest

pytestmark = pytest.mark.llama
KINDS = ("lora", "model", "untie-lora", "shared")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    base = TinyModel("llama")
    shutil.copytree(tiny_adapter("plain", base), tmp_path / "a")
    shutil.copyfile(base.gguf, tmp_path / "base.gguf")
    rows: list[dict[str, object]] = [
        {"adapter": "a", "base": "base.gguf", "deployment": kind, "output": f"out/{kind}.gguf"} for kind in KINDS[:-1]
    ]
    rows.append({**rows[-1], "output": "out/shared.gguf", "untied_base": "out/untied.gguf"})
    return write_manifest(tmp_path / "fleet.jsonl", rows)


def test_each_output_is_proven(manifest: Path) -> None:
    outcomes: list[Outcome] = []

    def keep(_: Task) -> None:
        outcomes.append(workers.outcomes["a"])

    workers = Serial(after=keep)
    result = run_fleet(manifest, workers, verify=True, push=manifest.parent / "store")
    assert (result.status, result.states) == (FINE, {"fine": len(KINDS)}), outcomes
    assert all(outcome.effect_ratio is not None and outcome.effect_ratio < 0.01 for outcome in outcomes)
    assert {path.stem for path in (manifest.parent / "store" / "out").iterdir()} == {*KINDS, "untied"}


def test_what_is_not_proven_is_judged_bad(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: files of an adapter with another scale take the places of the outputs."""
    other = shutil.copytree(manifest.parent / "a", manifest.parent / "other")
    config = json.loads((other / "adapter_config.json").read_bytes())
    (other / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1}), encoding="utf-8")

    def write_another(planned: ConversionPlan, output: Path, **options: Any) -> tuple[Written, ...]:
        with plan(read_adapter(other), planned.base, planned.deployment) as another:
            return write(another, output, **options)

    monkeypatch.setattr(outputs, "write", write_another)
    workers = Serial()
    with hub_of_this_process(monkeypatch) as hub:
        result = run_fleet(manifest, workers, verify=True, push=hub_address("hf://org/name"))
        assert (result.status, result.states) == (JUDGED_BAD, {"unproven": len(KINDS)})
        assert "not proven: effect ratio" in workers.outcomes["a"].message
        again = run_fleet(manifest, Serial(), verify=True, push=hub_address("hf://org/name"))
        assert again.n_finished_before == len(KINDS)
        assert hub.commits == []
