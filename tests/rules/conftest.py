"""The specimen that each test of a rule spoils."""

from pathlib import Path

import pytest

from tests.rules.specimens import Specimen, write_gguf


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bases")
    write_gguf(directory / "tied.gguf")
    write_gguf(directory / "untied.gguf", tied=False)
    write_gguf(directory / "gemma.gguf", "gemma")
    return directory


@pytest.fixture
def specimen(tmp_path: Path, bases: Path) -> Specimen:
    return Specimen(tmp_path / "adapter", bases / "tied.gguf")


@pytest.fixture
def untied(tmp_path: Path, bases: Path) -> Specimen:
    """The same beside an untied base."""
    return Specimen(tmp_path / "adapter", bases / "untied.gguf")
