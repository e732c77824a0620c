"""Every variation of PEFT's on every base in every deployment: exact in real llama.cpp, or refused with its code.

`make variations` runs all of it; the variations on the tied llama are part of `make test`.
"""

import json
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from converter.diagnostics import OPTIONS, Kind
from converter.verification.llama_cpp import LlamaCpp
from fixtures.variation import BASES, Variation, names_of
from fixtures.variations import VARIATIONS
from tests.variations.cells import (
    LARGEST_RATIO,
    LEAST_EFFECT,
    Part,
    Saved,
    check,
    convert,
    delete,
    deployed,
    errors,
    expected,
    parts,
    ratio,
    tensor_proof,
)
from tests.variations.page import Outcomes

KINDS: tuple[Kind, ...] = get_args(Kind)
CELLS = tuple(
    (variation, column)
    for column, base in BASES.items()
    for variation in VARIATIONS
    if not variation.lacking(names_of(base))
)
CONVERTIBLE = tuple(
    (variation, column)
    for variation, column in CELLS
    if any(expected(variation, column, kind) is None for kind in KINDS)
)

# What nobody knows.
KEY = "base_model.model.model.steering.lora_phase"
FIELD = "lora_phase_shift"

# What make test runs: every variation on one base, some on every base.
EVERYTHING_ON = "llama"
EVERYWHERE = (
    "use_rslora and both patterns",
    "LoRA on both ends",
    "ensure_weight_tying, LoRA on both ends",
    "use_dora",
    "modules_to_save: norms, a linear and both ends",
    "fused experts, both parameters",
)


def _row(variation: Variation, column: str) -> object:
    representative = column == EVERYTHING_ON or variation.name in EVERYWHERE
    marks = [pytest.mark.llama] if representative else []
    return pytest.param(variation, column, id=f"{variation.name} on {column}", marks=marks)


@pytest.mark.variations
@pytest.mark.parametrize(("variation", "column"), [_row(*cell) for cell in CELLS])
def test_every_deployment_is_exact_or_refused(
    variation: Variation, column: str, llama_cpp: LlamaCpp, outcomes: Outcomes, tmp_path: Path
) -> None:
    saved = Saved(variation, column, tmp_path)
    for kind in KINDS:
        output = tmp_path / "output"
        code = expected(variation, column, kind)
        if code is None:
            outcomes[variation.name, column, kind] = _exact(saved, kind, output, llama_cpp)
        else:
            _refused(saved, kind, output, code)
            outcomes[variation.name, column, kind] = code
        delete(output)


def _exact(saved: Saved, kind: Kind, output: Path, llama_cpp: LlamaCpp) -> float:
    result = convert(saved, kind, output)
    assert result.exit_code == 0, f"{kind}: {result.stderr}"
    files = deployed(saved, kind, output)
    assert (saved.effect >= LEAST_EFFECT) == saved.variation.has_effect
    found = ratio(saved, files, llama_cpp)
    assert found <= LARGEST_RATIO, f"{kind}: effect ratio {found:.3g}"
    assert not tensor_proof(saved, files).faults, kind
    ledger = Counter(Part(line["kind"], line["key"]) for line in json.loads(result.stdout)["plan"]["ledger"])
    assert ledger == Counter(parts(saved.adapter)), kind
    return found


def _refused(saved: Saved, kind: Kind, output: Path, code: str) -> None:
    result = convert(saved, kind, output)
    assert (result.exit_code, output.exists()) == (1, False), f"{kind}: {result.stdout[:200]}"
    assert code in result.stderr, kind
    report = check(saved, kind)
    assert report["status"] == 1, kind
    assert code in {finding["code"] for finding in errors(report)}, kind


@pytest.mark.variations
@pytest.mark.parametrize(("variation", "column"), [_row(*cell) for cell in CONVERTIBLE])
def test_what_nobody_knows_is_named_and_refused(variation: Variation, column: str, tmp_path: Path) -> None:
    """An unknown key, and an unknown config field with a value, in every adapter that is converted somewhere."""
    saved = Saved(variation, column, tmp_path)
    weights, config = saved.adapter / "adapter_model.safetensors", saved.adapter / "adapter_config.json"
    save_file({**load_file(weights), KEY: torch.ones(4)}, weights)
    config.write_text(json.dumps({**json.loads(config.read_text()), FIELD: 0.5}))
    findings = errors(check(saved, "model"))
    for part in (KEY, FIELD):
        blocked = [set(found["blocks"]) for found in findings if part in f"{found['where']} {found['message']}"]
        assert set(OPTIONS.values()) in blocked, part
    assert convert(saved, "model", tmp_path / "output").exit_code == 1


def test_the_table_is_as_large_as_it_claims() -> None:
    assert len(VARIATIONS) >= 60
    assert len({variation.name for variation in VARIATIONS}) == len(VARIATIONS)
    assert len(BASES) == 10
