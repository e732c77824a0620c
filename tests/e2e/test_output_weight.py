"""Which loaders read output.weight is measured: docs/output_weight.md and converter/architectures say the same."""

from pathlib import Path

import pytest

from benchmarks.output_weight import DOCUMENT, Outcome, measure, measured, table
from converter.architectures import NAMES, architecture_named
from converter.verification.llama_cpp import LlamaCpp
from fixtures.tiny import CONFIGS, MORE, TIED_FOR_GOOD, UNTIED_FOR_GOOD

pytestmark = pytest.mark.llama


@pytest.mark.parametrize("name", [name for name in NAMES if name in {**CONFIGS, **MORE}])
def test_an_architecture_says_what_its_loader_does(name: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    outcome = measure(name, llama_cpp, tmp_path)
    expected: Outcome = "optional"
    if name in TIED_FOR_GOOD + UNTIED_FOR_GOOD:
        expected = "refused" if name in TIED_FOR_GOOD else "wanted"
    assert outcome == expected
    architecture = architecture_named(name)
    assert architecture
    assert architecture.graph.reads_output == (outcome != "refused")


def test_the_document_is_what_is_measured() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == table(measured())
