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

# Models whose ways of a tensor are those of others: a LoRA on each and the merged model are always tried.
LIKE_OTHERS = frozenset({"afmoe", "dots1", "falcon-7b", "falcon2", "falcon_mamba", "jamba", "mamba2", "qwen3vlmoe"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What else is tried on such models is a variation."""
    for item in (item for item in items if item.path.name.startswith("test_more_")):
        of = getattr(item, "callspec", None)
        tried = {str(value) for value in of.params.values()} if of else set()
        if tried & LIKE_OTHERS and not item.name.startswith("test_an_adapter_is_applied_exactly"):
            item.add_marker(pytest.mark.thorough)


@pytest.fixture(scope="session")
def llama_cpp() -> Iterator[LlamaCpp]:
    with LlamaCpp() as worker:
        yield worker
