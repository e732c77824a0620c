"""The guard before ctypes: another build of llama.cpp is refused, never tried."""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

from converter.errors import COULD_NOT, ConverterError
from converter.verification.llama_cpp_library import (
    _FUNCTIONS,
    XLLAMACPP_VERSION,
    ContextParams,
    _check_defaults,
    find_library,
    load_library,
)


def test_the_library_is_found_without_importing_xllamacpp() -> None:
    assert find_library().name.startswith("xllamacpp")


def test_another_version_is_refused_and_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2025.1.1")
    with pytest.raises(ConverterError, match=rf"2025\.1\.1 .* wanted {XLLAMACPP_VERSION}") as refusal:
        find_library()
    assert refusal.value.status == COULD_NOT


def test_a_missing_extra_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConverterError, match=r"pip install '.\[verify\]'"):
        find_library()


def test_structs_with_other_defaults_are_refused() -> None:
    shifted = ContextParams(n_ctx=512, n_batch=512)
    with pytest.raises(ConverterError, match="n_batch is 512, wanted 2048"):
        _check_defaults(Path("lib.so"), shifted, {"n_ctx": 512, "n_batch": 2048})


def test_a_library_without_the_functions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_FUNCTIONS, "llama_no_such_function", (None, []))
    with pytest.raises(ConverterError, match="llama_no_such_function"):
        load_library()
