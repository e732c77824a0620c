"""The adapter that the tests of the hub serve."""

from pathlib import Path

import pytest

from tests.rules.specimens import Specimen, write_gguf


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    it = Specimen(tmp_path / "adapter", write_gguf(tmp_path / "base.gguf"))
    it.write()
    return it
