"""Rows and columns of what is stored as anything but numbers: one line, whichever way they are asked for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import ConverterError
from converter.read.stored import StoredTensor
from converter.values.rows import Array, read_columns, read_rows


@pytest.mark.parametrize("read", [read_rows, read_columns])
@pytest.mark.parametrize("dtype", ["U8", "U64", "BOOL", "C64"])
def test_what_holds_no_numbers_is_refused(read: Callable[[StoredTensor, int, int], Array], dtype: str) -> None:
    with pytest.raises(ConverterError, match=f"model: a tensor is stored as {dtype}, which holds no floating-point"):
        read(StoredTensor(Path("model"), 0, 4, (2, 2), dtype), 0, 1)
