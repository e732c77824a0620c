from importlib.resources import files
from pathlib import Path

import pytest

from converter.errors import ConverterError
from converter.verification.prompts import invoked, random_sequences, sequences_of_tokens


def test_the_built_in_texts_come_with_the_package() -> None:
    lines = files("converter.verification").joinpath("prompts.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12
    assert all(line.strip() == line and line for line in lines)


def test_random_ids_are_the_same_on_every_run_and_within_the_vocabulary() -> None:
    assert random_sequences(320) == random_sequences(320)
    assert max(max(sequence) for sequence in random_sequences(7)) == 6


def test_ids_are_separated_by_spaces_or_commas(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text("1 2 3\n\n4, 5,6\n")
    assert sequences_of_tokens(path, 10) == ((1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 ten", r"sequence 1 has 'ten', wanted ids from 0 to 9"),
        ("1\n10", r"sequence 2 has '10'"),
        ("-1", r"has '-1'"),
        ("²", r"has '²'"),
        ("\n", "holds nothing to run"),
    ],
)
def test_what_is_no_token_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConverterError, match=message):
        sequences_of_tokens(path, 10)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="nowhere"):
        sequences_of_tokens(tmp_path / "nowhere", 10)


@pytest.mark.parametrize(
    ("sequence", "wanted"),
    [
        ((1, 5, 9, 2), (1, 5, 9, 2)),
        ((5, 9), (5, 9)),
        ((5, 1, 9, 2), (5, 1, 5, 9, 9, 2)),
        ((5,), (5, 9, 5)),
        ((), (5, 9)),
    ],
)
def test_invocation_tokens_come_into_sequences_that_lack_them(
    sequence: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    assert invoked((sequence,), (5, 9)) == (wanted,)
    assert invoked((sequence,), ()) == (sequence,)
