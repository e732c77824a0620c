"""A good adapter to read."""

from pathlib import Path

import pytest

from tests.rules.specimens import Specimen


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    return Specimen(tmp_path / "adapter", base=None)
