"""Which directories a path stands for."""

from pathlib import Path

import pytest

from converter.read.checkpoint import Found, find_adapters, is_local_name


def adapter(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text("{}", encoding="utf-8")
    return directory


def test_an_adapter_stands_for_itself_and_those_that_peft_put_below_it(tmp_path: Path) -> None:
    top = adapter(tmp_path / "out")
    named = adapter(top / "second_adapter")
    adapter(top / "checkpoint-500")
    assert find_adapters(top).adapters == (top, named)


def test_any_other_directory_stands_for_all_below_it_but_snapshots(tmp_path: Path) -> None:
    first, second = adapter(tmp_path / "b" / "deep" / "final"), adapter(tmp_path / "a")
    adapter(tmp_path / "a" / "checkpoint-10")
    adapter(tmp_path / ".cache" / "x")
    assert find_adapters(tmp_path).adapters == (second, first)


def test_snapshots_count_where_there_is_nothing_else(tmp_path: Path) -> None:
    snapshots = tuple(adapter(tmp_path / "run" / f"checkpoint-{n}") for n in (10, 20))
    assert find_adapters(tmp_path).adapters == snapshots
    assert find_adapters(snapshots[0]).adapters == snapshots[:1]


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_file_of_an_adapter_stands_for_its_directory(name: str, tmp_path: Path) -> None:
    directory = adapter(tmp_path / "a")
    (directory / name).touch()
    assert find_adapters(directory / name).adapters == (directory,)


def test_a_broken_link_says_what_it_was_to_be(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_model.safetensors").symlink_to("gone")
    assert find_adapters(tmp_path).adapters == (tmp_path / "a",)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    assert find_adapters(tmp_path).adapters == ()
    assert find_adapters(tmp_path / "README.md").adapters == ()
    assert find_adapters(tmp_path / "mistyped").adapters == ()


@pytest.mark.parametrize("name", ["adapter_model-00001-of-00002.safetensors", "a b.safetensors", "ü.safetensors"])
def test_a_local_name(name: str) -> None:
    assert is_local_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "/etc/passwd", "a/b", "a\\b", "C:a", "a\0b", "a\nb", "\ud800"])
def test_a_name_that_leads_elsewhere(name: str) -> None:
    assert not is_local_name(name)


# --- Links ------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(10)
def test_links_to_a_directory_above_make_no_tree_without_end(tmp_path: Path) -> None:
    first = adapter(tmp_path / "a" / "b")
    for i in range(30):
        (tmp_path / f"link-{i}").symlink_to(".")
        (tmp_path / "a" / f"up-{i}").symlink_to("..")
    assert find_adapters(tmp_path) == Found((first,))


def test_a_linked_adapter_is_found_once(tmp_path: Path) -> None:
    adapter(tmp_path / "elsewhere" / "a")
    (tmp_path / "here").mkdir()
    for name in ("x", "y"):
        (tmp_path / "here" / name).symlink_to(tmp_path / "elsewhere" / "a")
    assert find_adapters(tmp_path / "here") == Found((tmp_path / "here" / "x",))


def test_an_adapter_is_found_by_its_shortest_way(tmp_path: Path) -> None:
    """A link that is deep down, and comes first, doesn't hide what lies below the directory it points to."""
    deep = tmp_path / "a" / "b" / "c" / "d" / "e"
    deep.mkdir(parents=True)
    found = adapter(tmp_path / "z" / "y" / "adapter")
    (deep / "link").symlink_to(tmp_path / "z")
    assert find_adapters(tmp_path) == Found((found,))
