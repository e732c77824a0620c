"""Odd adapters and bases: what is accepted loads in real llama.cpp and has finite logits; the others are refused.

A run takes the cases from 0; ``make odd`` takes 500 of them. A case that fails is named by its number, edits and all.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converter.cli.to_gguf import main
from converter.diagnostics import OPTIONS
from converter.errors import COULD_NOT, FINE, JUDGED_BAD
from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed
from fixtures.odd import OddCase, odd_case
from fixtures.tiny import token_sequences

pytestmark = pytest.mark.llama

N_CASES = int(os.environ.get("ODD_CASES", "60"))
TOKENS = token_sequences(1, 24)


@pytest.mark.timeout(3600)
def test_it_is_served_or_refused(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    faults, n_served = [], 0
    for number in range(N_CASES):
        directory = tmp_path / str(number)
        directory.mkdir()
        case = odd_case(number, directory)
        fault, served = _judged(case, llama_cpp)
        n_served += served
        if fault:
            faults.append(f"{case}: {fault}")
    assert not faults, "\n".join(faults)
    # The edits are neither so mild that nothing is refused, nor so wild that nothing is left to load.
    assert N_CASES / 4 < n_served < N_CASES * 3 / 4


def _judged(case: OddCase, llama_cpp: LlamaCpp) -> tuple[str | None, bool]:
    """What is wrong with how the case came out, and whether a file was written."""
    output = case.directory / "out"
    options = OPTIONS[case.kind].split()
    ran = CliRunner().invoke(main, [str(case.adapter), "--base", str(case.base), *options, "-o", str(output)])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        return f"{type(ran.exception).__name__}: {ran.exception}", False
    if ran.exit_code != FINE:
        left = [path.name for path in (output, output / "lora.gguf") if path.is_file()]
        right = ran.exit_code in (JUDGED_BAD, COULD_NOT) and not left
        return (None if right else f"status {ran.exit_code}, and {left} are there"), False
    return _served(case, output, llama_cpp), True


def _served(case: OddCase, output: Path, llama_cpp: LlamaCpp) -> str | None:
    model, lora = {
        "lora": (case.base, output),
        "untie-lora": (output / "untied-base.gguf", output / "lora.gguf"),
    }.get(case.kind, (output, None))
    try:
        is_good = _is_finite(llama_cpp, model, lora)
    except LlamaCppFailed as error:
        return f"llama.cpp: {' '.join(str(error).split())[-300:]}"
    return None if is_good else "the logits are not finite"


def _is_finite(llama_cpp: LlamaCpp, model: Path, lora: Path | None = None) -> bool:
    (logits,) = llama_cpp.logits(model, TOKENS, lora=lora)
    return bool(np.isfinite(logits).all())
