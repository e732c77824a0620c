"""What end-to-end tests share: one llama.cpp worker for the whole run.

Tiny models and adapters need no fixture of pytest's: `fixtures.tiny.TinyModel` and
`fixtures.adapters.tiny_adapter` build what is asked for, once.
"""

import os
from collections.abc import Iterator

import pytest

from converter.verification.llama_cpp import LlamaCpp

# Signals, permissions and file systems as POSIX has them.
collect_ignore = ["test_failures.py"] if os.name == "nt" else []


@pytest.fixture(scope="session")
def llama_cpp() -> Iterator[LlamaCpp]:
    with LlamaCpp() as worker:
        yield worker
