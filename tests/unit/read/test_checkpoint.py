"""Which directories a path stands for."""

from pathlib import Path

import pytest

from converter.read.checkpoint import find_adapters, is_local_name


def adapter(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text("{}", encoding="utf-8")
    return directory


def test_an_adapter_stands_for_itself_and_those_that_peft_put_below_it(tmp_path: Path) -> None:
    top = adapter(tmp_path / "out")
    named = adapter(top / "second_adapter")
    adapter(top / "checkpoint-500")
    assert find_adapters(top) == (top, named)


def test_any_other_directory_stands_for_all_below_it_but_snapshots(tmp_path: Path) -> None:
    first, second = adapter(tmp_path / "b" / "deep" / "final"), adapter(tmp_path / "a")
    adapter(tmp_path / "a" / "checkpoint-10")
    adapter(tmp_path / ".cache" / "x")
    assert find_adapters(tmp_path) == (second, first)


def test_snapshots_count_where_there_is_nothing_else(tmp_path: Path) -> None:
    snapshots = tuple(adapter(tmp_path / "run" / f"checkpoint-{n}") for n in (10, 20))
    assert find_adapters(tmp_path) == snapshots
    assert find_adapters(snapshots[0]) == snapshots[:1]


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_file_of_an_adapter_stands_for_its_directory(name: str, tmp_path: Path) -> None:
    directory = adapter(tmp_path / "a")
    (directory / name).touch()
    assert find_adapters(directory / name) == (directory,)


def test_a_broken_link_says_what_it_was_to_be(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_model.safetensors").symlink_to("gone")
    assert find_adapters(tmp_path) == (tmp_path / "a",)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    assert find_adapters(tmp_path) == ()
    assert find_adapters(tmp_path / "README.md") == ()
    assert find_adapters(tmp_path / "mistyped") == ()


@pytest.mark.parametrize("name", ["adapter_model-00001-of-00002.safetensors", "a b.safetensors", "ü.safetensors"])
def test_a_local_name(name: str) -> None:
    assert is_local_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "/etc/passwd", "a/b", "a\\b", "C:a", "a\0b", "a\nb", "\ud800"])
def test_a_name_that_leads_elsewhere(name: str) -> None:
    assert not is_local_name(name)
