"""Where a base is looked for when --base doesn't say: a path, or the hub's cache on this machine."""

from pathlib import Path

import pytest
from click.testing import CliRunner

import converter
from converter.cli import check, to_gguf
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import read_base_model
from converter.derive.locate import find_base, hub_cache, located_base, named_base
from converter.derive.model_names import public_name
from converter.errors import ConverterError
from converter.read.gguf_header import read_gguf_header
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


# --- Names of the hub's cache -----------------------------------------------------------------------------------------


def test_the_option_may_name_what_the_cache_has(cache: Path, tmp_path: Path) -> None:
    for name in ("google/gemma-2b", "google/gemma-2b@main", f"google/gemma-2b@{COMMIT}"):
        assert located_base(Path(name)) == cache / "snapshots" / COMMIT
    for name in (
        "google/gemma-7b",
        "google/gemma-2b@v9",
        "google/gemma-2b@../main",
        "../hub",
        str(tmp_path / "nowhere"),
    ):
        assert located_base(Path(name)) == Path(name)


def test_what_lies_there_wins_over_the_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google" / "gemma-2b").mkdir(parents=True)
    assert located_base(Path("google/gemma-2b")) == Path("google/gemma-2b")


@pytest.mark.usefixtures("cache")
def test_every_door_takes_a_name_of_the_cache(tmp_path: Path) -> None:
    it = adapter(tmp_path)
    judged = CliRunner().invoke(check.main, [str(it.path), "--base", "google/gemma-2b"])
    assert (judged.exit_code, judged.stderr) == (0, "")
    output = tmp_path / "x.gguf"
    converted = CliRunner().invoke(to_gguf.main, [str(it.path), "--base", "google/gemma-2b", "-o", str(output)])
    assert (converted.exit_code, converted.stderr, output.exists()) == (0, "", True)
    assert converter.read_base("google/gemma-2b").label == "google/gemma-2b"


def test_a_name_that_neither_has_says_where_it_was_looked_for(tmp_path: Path) -> None:
    refused = CliRunner().invoke(check.main, [str(adapter(tmp_path).path), "--base", "google/gemma-7b"])
    assert refused.exit_code == 2
    assert "google/gemma-7b: no such base; give a Hugging Face directory, a GGUF file, or the name of" in refused.stderr


@pytest.mark.parametrize("before", ["", "../.cache/huggingface/hub/", "/root/.cache/huggingface/hub/", "C:\\hub\\"])
def test_a_snapshot_of_another_cache_is_known_by_its_name(before: str, cache: Path, tmp_path: Path) -> None:
    """Training on a snapshot's path writes that path: of another user, or relative to a directory nobody knows."""
    for commit in (COMMIT, OTHER):
        named = f"{before}models--google--gemma-2b/snapshots/{commit}"
        assert named_base(adapter(tmp_path, base_model_name_or_path=named)) == cache / "snapshots" / commit
    named = f"{before}models--google--gemma-2b/snapshots/{'c' * 40}"
    assert named_base(adapter(tmp_path, base_model_name_or_path=named)) is None


def test_a_commit_is_no_name(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cache / "snapshots" / COMMIT
    base = read_base_model(snapshot)
    assert (base.label, base.name) == ("google/gemma-2b", "google/gemma-2b")
    monkeypatch.chdir(snapshot)
    assert read_base_model(Path()).label == "google/gemma-2b"
    (tmp_path / COMMIT).mkdir()
    assert public_name(tmp_path / COMMIT) == COMMIT


def test_a_lora_names_the_repository_of_a_snapshot(cache: Path, tmp_path: Path) -> None:
    it = adapter(tmp_path, base_model_name_or_path=f"x/models--some--tiny-2b/snapshots/{COMMIT}")
    converter.convert(it, tmp_path / "x.gguf", base=cache / "snapshots" / COMMIT)
    entries = {entry.key: entry.value for entry in read_gguf_header(tmp_path / "x.gguf").key_values}
    assert entries["general.base_model.0.organization"] == "some"
    assert entries["general.base_model.0.name"] == "tiny-2b"


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


THERE = " is not on this machine; give it with --base"


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (None, "names no base; give it with --base"),
        ("me/tiny", f"its base 'me/tiny'{THERE} (`--base me/tiny --download` fetches it)"),
        ("tiny", f"its base 'tiny'{THERE}"),
        (
            "unsloth/T-bnb-4bit",
            f"its base 'unsloth/T-bnb-4bit'{THERE}, or T, which it was made from, or a GGUF of that",
        ),
    ],
)
def test_a_base_that_is_not_there_is_told(named: str | None, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConverterError) as error:
        converter.read_base(adapter(tmp_path, base_model_name_or_path=named))
    assert str(error.value) == f"{tmp_path / 'adapter'}: {told}"
