"""What the system doesn't let us look at is never taken for nothing, as pathlib takes it from Python 3.14 on."""

from errno import EACCES
from pathlib import Path
from typing import NoReturn

import pytest

from converter.errors import ConverterError
from converter.read.base_files import read_base_files
from converter.read.checkpoint import find_adapters


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    for name in ("exists", "is_dir", "is_file", "is_symlink"):
        monkeypatch.setattr(Path, name, lambda *_, **__: False)
    return tmp_path


def test_an_adapter_may_lie_there(closed: Path) -> None:
    assert find_adapters(closed).closed == ((closed, "Permission denied"),)


def test_a_base_may_lie_there(closed: Path) -> None:
    with pytest.raises(ConverterError, match="can't be read: Permission denied"):
        read_base_files(closed)
