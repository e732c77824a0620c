"""The hook that compiles the kernels: without a compiler, or with one that can't, the package is as it was before."""

import platform
import shutil
from pathlib import Path

import pytest

from converter.evaluation.native import FOLDER, LIBRARY, VARIABLE
from hatch_build import compiled


@pytest.fixture(name="root")
def sources(tmp_path: Path) -> Path:
    """A repository of the kernels alone, with a library of other sources."""
    folder = tmp_path / "converter" / "evaluation" / "native"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", LIBRARY.name))
    (folder / LIBRARY.name).write_bytes(b"of other sources")
    return tmp_path


def library_of(root: Path) -> Path:
    return root / "converter" / "evaluation" / "native" / LIBRARY.name


@pytest.mark.parametrize("compiler", ["/nowhere/c++", "false", "echo not"])
def test_a_compiler_that_cannot_leaves_no_library_behind(
    compiler: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", compiler)
    assert compiled(root) is None
    assert not library_of(root).exists()
    assert "the kernels don't compile, so the wheel is without" in capsys.readouterr().err


def test_without_a_compiler_there_is_none(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(root))
    assert compiled(root) is None
    assert not library_of(root).exists()
    assert capsys.readouterr().err == "hatch_build.py: no C++ compiler (CXX, cc): a wheel without kernels\n"


def test_a_wheel_without_kernels_can_be_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the library of an editable install stays."""
    monkeypatch.setenv(VARIABLE, "0")
    assert compiled(root) is None
    assert library_of(root).exists()


def test_elsewhere_there_are_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on 32-bit x86, whose registers round otherwise."""
    monkeypatch.setattr(platform, "machine", lambda: "i686")
    assert compiled(root) is None
