"""Bases and adapters by their names: out of the cache, or fetched where the user says so, as far as they are needed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.cli import check, to_gguf
from converter.errors import COULD_NOT
from converter.hub.originals import original_repository
from fixtures.adapters import tiny_adapter
from fixtures.hub import COMMIT, FakeHub, Handler, serving
from fixtures.tiny import TinyModel
from fixtures.trainable import trainable
from tests.unit.hub.commands import invoked
from tests.unit.hub.test_judged_on_hub import TOKEN, files_of

BASE = TinyModel("llama")
HF = trainable(BASE)  # with a tokenizer
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving(FakeHub({**files_of(HF), "pytorch_model.bin": b"evil"}, large=frozenset({WEIGHTS}))) as it:
        yield it


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_adapter("plain", BASE), tmp_path / "adapter"))


def cached_files(tmp_path: Path) -> set[str]:
    cache = tmp_path / "cache"
    return (
        {path.relative_to(cache).as_posix() for path in cache.rglob("*") if not path.is_dir()}
        if cache.exists()
        else set()
    )


def snapshot(*names: str) -> set[str]:
    return {f"models--org--name/snapshots/{COMMIT}/{name}" for name in names}


def test_a_lora_takes_headers_and_norms_of_its_base(hub: FakeHub, adapter: Path, tmp_path: Path) -> None:
    ran = invoked(to_gguf.main, hub, tmp_path, adapter, "--base", "org/name", "--download", "-o", "lora.gguf")
    assert (ran.status, ran.stderr) == (0, "")
    ranges = [request.headers.get("range") for request in hub.requests if request.target.startswith("/storage/")]
    assert len(ranges) > 3
    assert all(ranges)
    assert hub.n_sent < hub.size(WEIGHTS)
    assert cached_files(tmp_path) == set()
    local = invoked(to_gguf.main, hub, tmp_path, adapter, "--base", HF, "-o", "local.gguf")
    assert local.status == 0
    assert (tmp_path / "lora.gguf").read_bytes() == (tmp_path / "local.gguf").read_bytes()
    assert f"--base hf://org/name@{COMMIT} --download" in ran.stdout


def test_it_is_judged_without_its_weights(hub: FakeHub, adapter: Path, tmp_path: Path) -> None:
    ours = invoked(check.main, hub, tmp_path, adapter, "--base", "org/name@main", "--download", "--format", "json")
    theirs = invoked(check.main, hub, tmp_path, adapter, "--base", HF, "--format", "json")
    assert (ours.status, ours.stderr) == (theirs.status, "")
    (report,), (local,) = json.loads(ours.stdout)["adapters"], json.loads(theirs.stdout)["adapters"]
    assert [one["code"] for one in report["findings"]] == [one["code"] for one in local["findings"]]
    skipped = {one["code"] for one in report["skipped"]} - {one["code"] for one in local["skipped"]}
    assert "HD008" in skipped
    assert "NM001" not in skipped
    assert cached_files(tmp_path) == set()


def test_another_base_of_the_same_shapes_is_told_by_its_norms(hub: FakeHub, adapter: Path, tmp_path: Path) -> None:
    record = {"fingerprint": f"norms-sha256:{'0' * 64}", "of": "another"}
    (adapter / "base_fingerprint.json").write_text(json.dumps(record), encoding="utf-8")
    ran = invoked(check.main, hub, tmp_path, adapter, "--base", "org/name", "--download")
    assert ran.status == 1
    assert "another-base-recorded" in ran.stdout


def test_a_model_takes_whole_files_into_the_cache(hub: FakeHub, adapter: Path, tmp_path: Path) -> None:
    options = ("--base", "org/name", "--to", "lora", "--untie", "-o", "out")
    ran = invoked(to_gguf.main, hub, tmp_path, adapter, *options, "--download")
    assert ran.status in (0, 1), ran
    there = {name for name in cached_files(tmp_path) if "/snapshots/" in name}
    assert snapshot("config.json", WEIGHTS) <= there
    assert not there & snapshot("pytorch_model.bin")
    (path,) = (tmp_path / "cache").rglob(WEIGHTS)
    assert path.read_bytes() == (HF / WEIGHTS).read_bytes()
    hub.requests.clear()
    again = invoked(to_gguf.main, hub, tmp_path, adapter, *options)
    assert again.status == ran.status
    assert hub.requests == []
    judged = invoked(check.main, hub, tmp_path, adapter, "--base", f"hf://org/name@{COMMIT}")
    assert judged.status == 0
    assert hub.requests == []


def test_nothing_is_asked_where_nobody_says_so(hub: FakeHub, adapter: Path, tmp_path: Path) -> None:
    for given in ("org/name", "org/name@main", "hf://org/name"):
        for command in (check.main, to_gguf.main):
            ran = invoked(command, hub, tmp_path, adapter, "--base", given)
            assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
            assert "org/name: no such base" in ran.stderr
            assert "--download" in ran.stderr
    ran = invoked(to_gguf.main, hub, tmp_path, "hf://org/name")
    assert (ran.status, "is not in the hub's cache on this machine; --download fetches it" in ran.stderr) == (2, True)
    assert hub.requests == []


def test_a_directory_of_that_name_wins(hub: FakeHub, adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(HF, tmp_path / "org" / "name")
    ran = invoked(to_gguf.main, hub, tmp_path, adapter, "--base", "org/name", "--download", "-o", "x.gguf")
    assert ran.status == 0
    assert hub.requests == []


def test_an_adapter_by_its_address_is_converted(adapter: Path, tmp_path: Path) -> None:
    files = {f"deep/{name}": path for name, path in files_of(adapter).items()} | {"deep/optimizer.pt": b"x" * 2_000_000}
    local = invoked(to_gguf.main, FakeHub({}), tmp_path, adapter, "--base", BASE.gguf, "-o", "local.gguf")
    with serving(FakeHub(files)) as hub:
        options = ("hf://org/name/deep", "--base", BASE.gguf, "-o", "x.gguf")
        ran = invoked(to_gguf.main, hub, tmp_path, *options, "--download")
        assert (local.status, ran.status, ran.stderr) == (0, 0, "")
        assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "local.gguf").read_bytes()
        assert not [name for name in cached_files(tmp_path) if "optimizer" in name]
        hub.requests.clear()
        assert invoked(to_gguf.main, hub, tmp_path, *options).status == 0
        assert hub.requests == []


REFUSALS: dict[str, tuple[str, dict[str, object], str]] = {
    "not there": ("org/other", {}, "is not there, or is private, which takes a token in HF_TOKEN"),
    "private": ("org/name", {"token": TOKEN}, "is not there, or is private, which takes a token in HF_TOKEN"),
    "gated": ("org/name", {"is_gated": True}, "is gated; ask for access"),
    "no such revision": ("org/name@v9", {}, "has no revision 'v9'"),
    "no model": ("org/name", {"files": {"README.md": b"x"}}, "no config.json; wanted a Hugging Face model"),
    "GGUFs": (
        "unsloth/Qwen3-4B-GGUF",
        {"files": {"Q4.gguf": b"x"}, "repository": "unsloth/Qwen3-4B-GGUF"},
        "unsloth/Qwen3-4B-GGUF Q4.gguf`), and give its path; or give the original with --base (unsloth/Qwen3-4B, by",
    ),
}


@pytest.mark.parametrize("options", [(), ("--to", "model")])
@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_had_is_one_line(
    hub: FakeHub, adapter: Path, tmp_path: Path, case: str, options: tuple[str, ...]
) -> None:
    name, changes, said = REFUSALS[case]
    for field, value in changes.items():
        setattr(hub, field, value)
    ran = invoked(to_gguf.main, hub, tmp_path, adapter, "--base", name, "--download", *options, "-o", "x.gguf")
    assert (ran.status, len(ran.lines), ran.stdout) == (COULD_NOT, 1, "")
    assert said in ran.stderr
    assert TOKEN not in ran.stderr
    assert not (tmp_path / "x.gguf").exists()
    assert cached_files(tmp_path) == set()


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8"])
def test_a_quantised_base_names_its_original_and_is_not_downloaded(
    hub: FakeHub, adapter: Path, tmp_path: Path, method: str
) -> None:
    config = json.loads((HF / "config.json").read_bytes()) | {"quantization_config": {"quant_method": method}}
    hub.files["config.json"] = json.dumps(config).encode()
    hub.repository = "unsloth/Llama-3.2-1B-unsloth-bnb-4bit"
    options = ("--base", hub.repository, "--download", "--to", "model", "-o", "x.gguf")
    ran = invoked(to_gguf.main, hub, tmp_path, adapter, *options)
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert f"is quantised by {method}, wanted the original weights (unsloth/Llama-3.2-1B, by its name)" in ran.stderr
    assert not [request for request in hub.requests if request.target.startswith("/storage/")]
    assert cached_files(tmp_path) == set()


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("unsloth/gemma-3-4b-it-bnb-4bit", "unsloth/gemma-3-4b-it"),
        ("unsloth/gemma-3-4b-it-GGUF", "unsloth/gemma-3-4b-it"),
        ("TheBloke/Mistral-7B-v0.1-AWQ", "Mistral-7B-v0.1"),
        ("TheBloke/Llama-2-7B-GPTQ", "Llama-2-7B"),
        ("mradermacher/Qwen3-4B-i1-GGUF", "Qwen3-4B"),
        ("neuralmagic/Meta-Llama-3-8B-Instruct-FP8", "Meta-Llama-3-8B-Instruct"),
        ("google/gemma-2b", None),
    ],
)
def test_the_original_is_told_by_rule(name: str, original: str | None) -> None:
    assert original_repository(name) == original


@pytest.mark.parametrize("options", [(), ("--to", "model")])
def test_a_connection_that_is_cut_leaves_nothing(
    hub: FakeHub, adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...]
) -> None:
    def cut(handler: Handler) -> None:
        handler.start(200, {"Content-Length": str(hub.size(WEIGHTS))})
        handler.body(b"half")
        handler.close_connection = True

    hub.faults["/storage/"] = cut
    command = (adapter, "--base", "org/name", "--download", *options, "-o", "x.gguf")
    ran = invoked(to_gguf.main, hub, tmp_path, *command)
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1), ran
    assert f"hf://org/name@{COMMIT}/{WEIGHTS}" in ran.stderr or f"hf://org/name@main/{WEIGHTS}" in ran.stderr
    assert "signature" not in ran.stderr + caplog.text
    assert not (tmp_path / "x.gguf").exists()
    assert {name for name in cached_files(tmp_path) if "/blobs/" in name or "/snapshots/" in name} == set()
    hub.faults.clear()
    assert invoked(to_gguf.main, hub, tmp_path, *command).status == 0


def test_a_token_goes_to_the_hub_alone(hub: FakeHub, adapter: Path, tmp_path: Path) -> None:
    hub.token = TOKEN
    command = (adapter, "--base", "org/name", "--download", "--to", "model", "-o", "x.gguf")
    ran = invoked(to_gguf.main, hub, tmp_path, *command, token=TOKEN)
    assert (ran.status, ran.stderr) == (0, "")
    assert TOKEN not in ran.stdout
    by_storage = [request for request in hub.requests if request.target.startswith("/storage/")]
    assert by_storage
    assert not any("authorization" in request.headers for request in by_storage)


def test_an_adapter_does_not_choose_its_base(hub: FakeHub, adapter: Path, tmp_path: Path) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"base_model_name_or_path": "org/name"}))
    ran = invoked(to_gguf.main, hub, tmp_path, adapter, "--download", "-o", "x.gguf")
    assert (ran.status, hub.requests) == (COULD_NOT, [])
    assert "give it with --base (`--base org/name --download` fetches it)" in ran.stderr
