"""Where a base is looked for when --base doesn't say: a path, or the hub's cache on this machine."""

from pathlib import Path

import pytest

from converter.derive.adapter import Adapter, read_adapter
from converter.derive.locate import find_base, hub_cache, named_base
from converter.errors import ConverterError
from tests.rules.specimens import Specimen, write_gguf, write_huggingface

COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with google/gemma-2b: main is one commit, the branch dev another."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--google--gemma-2b"
    for reference, commit in (("main", COMMIT), ("dev", OTHER)):
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / reference).write_text(commit, encoding="ascii")
        write_huggingface(repository / "snapshots" / commit)
    return repository


def adapter(tmp_path: Path, **config: object) -> Adapter:
    specimen = Specimen(tmp_path / "adapter", base=None)
    specimen.config |= config
    specimen.write()
    return read_adapter(specimen.directory)


@pytest.mark.parametrize(("revision", "commit"), [(None, COMMIT), ("main", COMMIT), ("dev", OTHER), (OTHER, OTHER)])
def test_a_revision_in_the_cache(revision: str | None, commit: str, cache: Path, tmp_path: Path) -> None:
    named = named_base(adapter(tmp_path, base_model_name_or_path="google/gemma-2b", revision=revision))
    assert named == cache / "snapshots" / commit


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("revision", ["gone", "../refs/main", "c" * 40])
def test_a_revision_that_is_not_in_the_cache(revision: str, tmp_path: Path) -> None:
    assert named_base(adapter(tmp_path, base_model_name_or_path="google/gemma-2b", revision=revision)) is None


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["google/gemma-7b", "", "../hub", "a/b/c", "\0", "\ud800", "google--gemma-2b/.."])
def test_a_name_that_is_not_there(name: str, tmp_path: Path) -> None:
    assert named_base(adapter(tmp_path, base_model_name_or_path=name)) is None


def test_a_reference_that_is_no_commit(cache: Path, tmp_path: Path) -> None:
    (cache / "refs" / "main").write_text("../../elsewhere", encoding="ascii")
    assert named_base(adapter(tmp_path, base_model_name_or_path="google/gemma-2b")) is None


def test_a_directory_or_file_named_by_the_adapter(tmp_path: Path) -> None:
    for path in (write_huggingface(tmp_path / "base"), write_gguf(tmp_path / "base.gguf")):
        assert named_base(adapter(tmp_path, base_model_name_or_path=str(path))) == path


def test_a_directory_that_happens_to_have_the_name_is_no_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "google" / "gemma-2b").mkdir(parents=True)
    assert named_base(adapter(tmp_path, base_model_name_or_path="google/gemma-2b")) is None


def test_the_option_wins(cache: Path, tmp_path: Path) -> None:
    assert cache
    gguf = write_gguf(tmp_path / "base.gguf")
    base = find_base(gguf, adapter(tmp_path, base_model_name_or_path="google/gemma-2b"))
    assert base
    assert base.path == gguf


def test_an_option_that_can_not_be_read_is_never_replaced(cache: Path, tmp_path: Path) -> None:
    assert cache
    with pytest.raises(ConverterError, match="no such base"):
        find_base(tmp_path / "nowhere", adapter(tmp_path, base_model_name_or_path="google/gemma-2b"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HF_HOME": ""}, "~/.cache/huggingface/hub"),
    ],
)
def test_the_caches_place(environment: dict[str, str], expected: str) -> None:
    assert hub_cache(environment) == Path(expected).expanduser()
