"""Arrays in the metadata, our own and the base's with other elements, read back by gguf's reader."""

from io import BytesIO
from pathlib import Path

import pytest

from converter.planning.conversion_plan import EditedArray, NewKeyValue, PlannedFile, PlannedKeyValue
from converter.read.gguf_header import GgufArray, read_gguf_header
from converter.writing.gguf_file import write_gguf
from tests.unit.conversion import metadata_of, write_base


def written(entry: PlannedKeyValue, tmp_path: Path) -> object:
    out = BytesIO()
    write_gguf(PlannedFile("model", (), (entry,)), out, lambda _: None)
    (tmp_path / "out.gguf").write_bytes(out.getvalue())
    return metadata_of(tmp_path / "out.gguf")[entry.key]


def test_an_array_of_ours(tmp_path: Path) -> None:
    assert written(NewKeyValue("ours", (1, 2, 3_000_000_000)), tmp_path) == [1, 2, 3_000_000_000]


@pytest.mark.parametrize(
    ("key", "n", "changes", "expected"),
    [
        ("odd.tokens", 3, ((1, "<tool>"),), ["<s>", "<tool>", "▁the"]),
        ("odd.tokens", 5, ((3, "größer"), (4, "")), ["<s>", "", "▁the", "größer", ""]),
        ("odd.tokens", 1, (), ["<s>"]),
        ("odd.scores", 4, ((0, 0.25), (2, -1000.0), (3, 2.0)), [0.25, -1.5, -1000.0, 2.0]),
    ],
)
def test_an_array_of_the_base_with_other_elements(
    key: str, n: int, changes: tuple[tuple[int, str | float], ...], expected: list[object], tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base.gguf")
    array = read_gguf_header(base).kv[key]
    assert isinstance(array, GgufArray)
    assert written(EditedArray(base, key, array, n, changes), tmp_path) == expected
