"""The table's run: one llama.cpp worker, and what came out of every cell, for docs/variations.md."""

import os
from collections.abc import Iterator

import pytest

from converter.verification.llama_cpp import LlamaCpp
from tests.variations.page import PAGE, Outcomes, render


@pytest.fixture(scope="session")
def llama_cpp() -> Iterator[LlamaCpp]:
    with LlamaCpp() as worker:
        yield worker


@pytest.fixture(scope="session")
def outcomes() -> Iterator[Outcomes]:
    """Outcomes by (variation, column, deployment). A run with UPDATE_VARIATIONS=1 writes the page from them."""
    found: Outcomes = {}
    yield found
    if os.environ.get("UPDATE_VARIATIONS"):
        PAGE.write_text(render(found), encoding="utf-8")
