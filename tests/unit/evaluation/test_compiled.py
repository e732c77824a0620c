"""What is compiled: kernels where there is a library, those for quantising where libggml can be followed."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from converter.evaluation.compiled import NOTHING, compiled
from converter.evaluation.native import FOLDER, VARIABLE, made_of
from converter.evaluation.native.quantising import TYPES
from hatch_build import sources_digest
from tests.kernels import require


def test_each_type_has_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    require()
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    found = compiled()
    assert found.merging
    assert set(found.quantising) == set(TYPES)


def test_elsewhere_libggml_itself_quantises(monkeypatch: pytest.MonkeyPatch) -> None:
    require()
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    found = compiled()
    assert found.merging
    assert not found.quantising


def test_the_library_is_made_of_these_sources() -> None:
    require()
    assert made_of() == sources_digest(FOLDER), "the kernels have changed since they were compiled: make venv"


def said(value: str, program: str) -> subprocess.CompletedProcess[str]:
    environment = {VARIABLE: value, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", f"from converter.evaluation.native import kernels; {program}"]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(("value", "wanted"), [("0", "None"), ("1", "1"), ("", "a level"), ("3", "at most 3")])
def test_which_kernels_are_used_can_be_told(value: str, wanted: str) -> None:
    most = require().level
    found = said(value, "found = kernels(); print(found and found.level)").stdout.strip()
    levels = {"None": ["None"], "1": ["1"], "a level": [str(most)], "at most 3": [str(min(3, most))]}
    assert [found] == levels[wanted]


def test_what_is_no_level_is_refused_in_one_line() -> None:
    assert "ADAPTER_TO_GGUF_KERNELS is 'fast'; wanted 0, 1, 3, 4, or nothing" in said("fast", "kernels()").stderr


def test_without_a_library_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.evaluation.compiled.kernels", lambda: None)
    assert compiled() is NOTHING
