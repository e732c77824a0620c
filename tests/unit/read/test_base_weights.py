"""What lies in the place of a file that transformers looks for beside a base's weights is never taken for nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import ConverterError
from converter.read.base_weights import refuse_others
from tests.rules.specimens import write_huggingface

ODD: dict[str, Callable[[Path], object]] = {
    "Too many levels of symbolic links": lambda path: path.symlink_to(path.name),
    "No such file or directory": lambda path: path.symlink_to("nowhere"),
    "is a directory, wanted a file": os.mkdir,
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    refuse_others(write_huggingface(tmp_path / "base"))  # which is good
    return tmp_path / "base"


@pytest.mark.parametrize("said", ODD)
@pytest.mark.parametrize(
    "name", ["generation_config.json", "merges.txt", "tokenizer.json", "vocab.json", "x.jinja", "a.model"]
)
def test_it_is_not_taken_for_nothing(name: str, said: str, base: Path) -> None:
    ODD[said](base / name)
    with pytest.raises(ConverterError, match=f"{name}: .*{said}"):
        refuse_others(base)


def test_nor_are_the_templates_of_a_directory(base: Path) -> None:
    templates = base / "additional_chat_templates"
    templates.symlink_to(templates.name)
    with pytest.raises(ConverterError, match=f"{templates}: .*Too many levels of symbolic links"):
        refuse_others(base)
    templates.unlink()
    templates.mkdir()
    (templates / "a.jinja").symlink_to("a.jinja")
    with pytest.raises(ConverterError, match=r"a\.jinja: .*Too many levels of symbolic links"):
        refuse_others(base)


def test_templates_of_elsewhere_are_not_read(base: Path) -> None:
    base.with_name("elsewhere").mkdir()
    (base / "additional_chat_templates").symlink_to("../elsewhere")
    with pytest.raises(ConverterError, match=r"additional_chat_templates: is a link to .*elsewhere, outside of its"):
        refuse_others(base)


def test_a_directory_that_may_not_be_listed_is_told(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(place: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ConverterError, match=f"{base}: can't be read: Permission denied"):
        refuse_others(base)
