"""A few cells as a shell runs them: the installed commands, their exit statuses, what they leave behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from converter.diagnostics import OPTIONS, Kind
from fixtures.variations import VARIATIONS
from tests.variations.cells import Saved, expected

CELLS: tuple[tuple[str, str, Kind], ...] = (
    ("use_rslora", "qwen2", "lora"),
    ("use_dora", "llama", "model"),
    ("use_dora", "llama", "lora"),
    ("LoRA on lm_head", "gemma", "untie-model"),
    ("modules_to_save: norms", "gemma3", "untie-lora"),
    ("a NaN", "qwen3", "model"),
    ("prompt tuning", "llama untied", "model"),
)


@pytest.mark.variations
@pytest.mark.llama
@pytest.mark.parametrize(("name", "column", "kind"), CELLS)
def test_both_commands_agree(name: str, column: str, kind: Kind, tmp_path: Path) -> None:
    variation = next(variation for variation in VARIATIONS if variation.name == name)
    saved = Saved(variation, column, tmp_path)
    code, output = expected(variation, column, kind), tmp_path / "output"
    arguments = [str(saved.adapter), *saved.options, *OPTIONS[kind].split()]
    converted = _run("adapter-to-gguf", *arguments, "-o", str(output))
    checked = _run("adapter-check", *arguments)
    assert (converted.returncode, checked.returncode) == ((1, 1) if code else (0, 0))
    assert output.exists() == (code is None)
    if code:
        assert code in converted.stderr
        assert code in checked.stdout


def _run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).with_name(command)
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=300)
