"""An adapter on a hub is judged as its directory is by --headers-only, and little of it is fetched."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from converter.cli import check as check_command
from converter.cli import to_gguf, verify
from fixtures.elsewhere import elsewhere
from fixtures.generated import write_gemma_2b_base, write_sparse_gemma_2b_adapter
from fixtures.hub import COMMIT, FakeHub, serving
from tests.rules.specimens import PREFIX, Specimen, head_lora
from tests.unit.hub.commands import ADDRESS, AT_COMMIT, check, check_apart

TOKEN = "hf_" + "x" * 34


def files_of(directory: Path) -> dict[str, bytes | Path]:
    return {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def hub(specimen: Specimen) -> Iterator[FakeHub]:
    with serving(FakeHub(files_of(specimen.directory), large=frozenset({"adapter_model.safetensors"}))) as it:
        yield it


def test_703_mb_are_judged_by_250_kb(tmp_path: Path) -> None:
    directory = tmp_path / "gemma"
    directory.mkdir()
    base = write_gemma_2b_base(tmp_path)
    write_sparse_gemma_2b_adapter(directory, rank=144)
    hub = FakeHub(files_of(directory), large=frozenset({"adapter_model.safetensors"}))
    assert hub.size("adapter_model.safetensors") > 703e6
    with serving(hub):
        ran = check_apart(hub, tmp_path, f"{ADDRESS}@main", "--base", base)
    assert (ran.status, ran.stderr) == (0, "")
    assert f"{AT_COMMIT}: fine for --to lora" in ran.stdout
    assert 30_000 < hub.n_sent < 250_000
    assert "reads the numbers (--headers-only): " in ran.stdout
    assert "NM001-NM006" in ran.stdout


@pytest.mark.parametrize("spoilt", [False, True])
def test_the_report_is_that_of_headers_only(specimen: Specimen, hub: FakeHub, tmp_path: Path, *, spoilt: bool) -> None:
    if spoilt:
        specimen.tensors |= head_lora()
        specimen.write()
    options = ("--base", specimen.base, "--to", "lora", "--target", "vllm", "--target", "sglang", "--format", "json")
    ours = check(hub, tmp_path, ADDRESS, *options)
    theirs = check(hub, tmp_path, specimen.directory, *options, "--headers-only")
    assert ours.status == theirs.status
    (report,), (local,) = json.loads(ours.stdout)["adapters"], json.loads(theirs.stdout)["adapters"]
    assert report.pop("path") == AT_COMMIT
    local.pop("path")
    assert [one.pop("command") for one in report["deployments"]]
    assert [one.pop("command") for one in local["deployments"]]
    assert report == local
    assert not any(str(tmp_path / "scratch") in text for text in (ours.stdout, ours.stderr))


def test_the_command_that_is_shown_downloads_this_commit(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    ran = check(hub, tmp_path, ADDRESS, "--base", specimen.base)
    wanted = f"hf download org/name --revision {COMMIT} --local-dir name && adapter-to-gguf name --base"
    assert wanted in ran.stdout


def test_all_comes_from_the_commit(hub: FakeHub, tmp_path: Path) -> None:
    check(hub, tmp_path, ADDRESS)
    targets = [request.target for request in hub.requests]
    assert targets[0].startswith("/api/models/org/name/revision/main")
    assert len(targets) > 3
    assert all(COMMIT in target or target.startswith("/storage/") for target in targets[1:])


def test_a_truncated_file_is_told_by_its_size_on_the_hub(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    specimen.weights.write_bytes(specimen.weights.read_bytes()[:-100])
    ran = check(hub, tmp_path, ADDRESS)
    assert ran.status == 1
    assert "truncated-file" in ran.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"1234", "too short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "lfs-pointer"),
        (b"<!doctype html><title>Log in</title>" + b" " * 1000, "a page of HTML"),
        (b"\xff" * 100_000, "claims a header"),
    ],
)
def test_weights_that_are_none_are_a_finding(hub: FakeHub, tmp_path: Path, content: bytes, said: str) -> None:
    hub.files["adapter_model.safetensors"] = content
    ran = check(hub, tmp_path, ADDRESS)
    assert ran.status == 1
    assert said in " ".join(ran.stdout.split())


def test_a_long_header_is_fetched_to_its_end(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    specimen.metadata = {"note": "x" * 150_000}
    specimen.write()
    assert check(hub, tmp_path, ADDRESS, "--base", specimen.base).status == 0
    ranges = [request.headers["range"] for request in hub.requests if "storage" in request.target]
    assert ranges[0] == f"bytes=0-{min(64_000, hub.size('adapter_model.safetensors')) - 1}"
    assert len(ranges) == 2


def test_shards_are_read_by_their_headers(specimen: Specimen, tmp_path: Path) -> None:
    specimen.write_shards()
    with serving(FakeHub(files_of(specimen.directory))) as hub:
        ran = check(hub, tmp_path, ADDRESS, "--base", specimen.base)
        assert ran.status == 0, ran
        del hub.files["part-2.safetensors"]
        assert check(hub, tmp_path, ADDRESS, "--base", specimen.base).status == 1


def test_adapters_below_are_found_as_in_a_directory(specimen: Specimen, tmp_path: Path) -> None:
    one, checkpoint = (files_of(specimen.directory) for _ in range(2))
    files = {f"sub/one/{name}": path for name, path in one.items()}
    files |= {f"sub/checkpoint-1/{name}": path for name, path in checkpoint.items()}
    with serving(FakeHub(files, page_length=2)) as hub:
        ran = check(hub, tmp_path, ADDRESS, "--base", specimen.base)
        assert ran.status == 0, ran
        assert ran.stdout.count(": fine for") == 1
        assert f"{AT_COMMIT}/sub/one: fine for --to lora" in ran.stdout
        named = check(hub, tmp_path, f"{ADDRESS}/sub/checkpoint-1", "--base", specimen.base)
        assert f"{AT_COMMIT}/sub/checkpoint-1: fine for --to lora" in named.stdout
        assert "--include 'sub/checkpoint-1/*' --local-dir name && adapter-to-gguf name/sub/checkpoint-1" in (
            named.stdout
        )


def test_a_repository_without_adapters_is_status_3(tmp_path: Path) -> None:
    with serving(FakeHub({"README.md": b"#", "model.safetensors": b"1"})) as hub:
        ran = check(hub, tmp_path, ADDRESS)
    assert (ran.status, len(ran.lines)) == (3, 1)
    assert "holds no adapter" in ran.stderr


# --- Files beside the weights -----------------------------------------------------------------------------------------


def test_the_tokenizer_and_the_record_are_read(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    hub.files["chat_template.jinja"] = b"{{ ''.__class__.__mro__ }}"
    hub.files["tokenizer.json"] = b"{"
    record = {"fingerprint": "norms-sha256:" + "0" * 64, "of": "other"}
    hub.files["base_fingerprint.json"] = json.dumps(record).encode()
    ran = check(hub, tmp_path, ADDRESS, "--base", specimen.base)
    assert ran.status == 1
    for name in ("template-reaches-into-python", "unreadable-tokenizer", "another-base-recorded"):
        assert name in ran.stdout


def test_a_small_pickle_is_looked_through(hub: FakeHub, tmp_path: Path) -> None:
    hub.files["training_args.bin"] = b"\x80\x04\x8c\x02os\x8c\x06system\x93."
    ran = check(hub, tmp_path, ADDRESS)
    assert ran.status == 1
    assert "os.system" in ran.stdout


def test_a_large_pickle_is_said_to_be_unread(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    hub.files["optimizer.pt"] = b"\x80\x04\x8c\x02os\x8c\x06system\x93." + bytes(1_000_000)
    ran = check(hub, tmp_path, ADDRESS, "--base", specimen.base)
    assert ran.status == 0
    assert "not fetched, too large: optimizer.pt: SC004, SC005" in ran.stdout
    assert not any("optimizer" in request.target for request in hub.requests)
    hub.files["rng_state.pth"] = b"\x80\x04\x8c\x02os\x8c\x06system\x93."
    assert check(hub, tmp_path, ADDRESS, "--base", specimen.base).status == 1


def test_weights_beside_are_told_by_their_names(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    hub.files["new_embeddings.safetensors"] = b"\x00" * 3_000_000
    ran = check(hub, tmp_path, ADDRESS, "--base", specimen.base)
    assert "weights-beside" in ran.stdout
    assert hub.n_sent < 100_000


def test_pickled_weights_are_refused_without_being_fetched(hub: FakeHub, tmp_path: Path) -> None:
    hub.files["adapter_model.bin"] = bytes(3_000_000)
    del hub.files["adapter_model.safetensors"]
    ran = check(hub, tmp_path, ADDRESS)
    assert ran.status == 1
    assert "pickled-weights" in ran.stdout
    assert hub.n_sent < 100_000


# --- The token, and whether the network is wanted ---------------------------------------------------------------------


def test_the_token_opens_a_private_repository_and_goes_to_the_hub_alone(
    specimen: Specimen, hub: FakeHub, tmp_path: Path
) -> None:
    hub.token = TOKEN
    refused = check_apart(hub, tmp_path, ADDRESS, "--base", specimen.base)
    assert (refused.status, len(refused.lines)) == (2, 1)
    assert "is not there, or is private, which takes a token in HF_TOKEN (status 401)" in refused.stderr
    hub.requests.clear()
    ran = check_apart(hub, tmp_path, ADDRESS, "--base", specimen.base, HF_TOKEN=TOKEN)
    assert ran.status == 0, ran
    by_storage = {
        request.target.startswith("/storage/"): request.headers.get("authorization") for request in hub.requests
    }
    assert by_storage == {False: f"Bearer {TOKEN}", True: None}
    assert TOKEN not in ran.stdout + ran.stderr
    wrong = check_apart(hub, tmp_path, ADDRESS, HF_TOKEN=TOKEN[:-1])
    assert (wrong.status, len(wrong.lines)) == (2, 1)
    assert "is not there, or this token may not see it (status 404)" in wrong.stderr


def test_the_token_may_be_held_back(hub: FakeHub, tmp_path: Path) -> None:
    hub.token = TOKEN
    ran = check_apart(hub, tmp_path, ADDRESS, HF_TOKEN=TOKEN, HF_HUB_DISABLE_IMPLICIT_TOKEN="1")  # noqa: S106  none
    assert ran.status == 2
    assert not any("authorization" in request.headers for request in hub.requests)


def test_offline_refuses_and_asks_nobody(hub: FakeHub, tmp_path: Path) -> None:
    ran = check_apart(hub, tmp_path, ADDRESS, HF_HUB_OFFLINE="1")
    assert (ran.status, len(ran.lines)) == (2, 1)
    assert "HF_HUB_OFFLINE is set" in ran.stderr
    assert hub.requests == []


def test_a_path_asks_nobody(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    assert check_apart(hub, tmp_path, specimen.directory, "--base", specimen.base).status == 0
    assert hub.requests == []


def test_without_the_extra_it_is_named(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "huggingface_hub.py").write_text(
        "raise ModuleNotFoundError('no', name='huggingface_hub')", encoding="utf-8"
    )
    path = f"{tmp_path / 'without'}:{Path(__file__).parents[3]}"
    ran = check_apart(hub, tmp_path, ADDRESS, PYTHONPATH=path)
    assert (ran.status, len(ran.lines)) == (2, 1)
    assert "needs huggingface_hub, which is not installed; run pip install '.[hub]'" in ran.stderr


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (check_command.main, ["{adapter}", "--initial-adapter", ADDRESS]),
        (to_gguf.main, ["{adapter}", "--base", "{base}", "-o", ADDRESS]),
        (verify.main, ["{adapter}", "--base", "{base}", "--model", ADDRESS]),
    ],
)
def test_nothing_else_may_lie_on_a_hub(main: Any, arguments: list[str], specimen: Specimen, hub: FakeHub) -> None:
    given = [argument.format(adapter=specimen.directory, base=specimen.base) for argument in arguments]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 2
    assert "lies on a hub; only adapters and their bases may: download it first" in result.stderr
    assert hub.requests == []


# --- What needs the bytes ---------------------------------------------------------------------------------------------


def test_a_waiver_is_not_for_bytes_that_were_not_read(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    specimen.tensors |= head_lora()
    specimen.write()
    path = tmp_path / "policy.toml"
    policy = ["--config", path, "--base", specimen.base]
    path.write_text("[limits]\nrank = 64\n", encoding="utf-8")
    assert check(hub, tmp_path, specimen.directory, *policy, "--baseline-until", "2099-01-01").status == 0
    assert check(hub, tmp_path, specimen.directory, *policy).status == 0
    ran = check(hub, tmp_path, ADDRESS, *policy)
    assert ran.status == 1
    assert "of an adapter on a hub the bytes aren't read" in ran.stderr


def test_limits_and_settings_of_a_policy_count(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('[limits]\nsize = "1 KB"\n', encoding="utf-8")
    options = ["--config", path, "--base", specimen.base]
    assert "PO002" in check(hub, tmp_path, ADDRESS, *options).stdout
    path.write_text(f"{path.read_text(encoding='utf-8')}[[by-path]]\npath = 'hf://org/*'\nignore = ['PO']\n")
    assert check(hub, tmp_path, ADDRESS, *options).status == 0


@pytest.mark.parametrize("option", ["--attest", "--verify-attestation"])
def test_attestations_are_refused(hub: FakeHub, tmp_path: Path, option: str) -> None:
    ran = check(hub, tmp_path, ADDRESS, option, tmp_path / "statements.jsonl")
    assert (ran.status, len(ran.lines)) == (2, 1)
    assert "is judged without its bytes, which an attestation names" in ran.stderr
    assert not (tmp_path / "statements.jsonl").exists()


def test_a_baseline_is_refused(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    specimen.tensors |= head_lora()
    specimen.write()
    ran = check(hub, tmp_path, ADDRESS, "--base", specimen.base, "--baseline-until", "2099-01-01")
    assert ran.status == 2
    assert "is judged without its bytes, which a waiver is for" in ran.stderr
    assert not (tmp_path / "adapter-check.toml").exists()


FORMATS = ("text", "json", "sarif", "junit", "gitlab", "github", "markdown", "html")


def test_every_format_names_the_address(specimen: Specimen, hub: FakeHub, tmp_path: Path) -> None:
    specimen.tensors |= head_lora()
    specimen.tensors[f"{PREFIX}.odd"] = next(iter(specimen.tensors.values()))
    specimen.write()
    files = [f"--format={name}={tmp_path / name}" for name in FORMATS]
    assert check(hub, tmp_path, ADDRESS, "hf://org/none", "--base", specimen.base, *files).status == 2
    for name in FORMATS:
        text = (tmp_path / name).read_text(encoding="utf-8")
        for address in (AT_COMMIT, "hf://org/none@main"):
            shown = address.replace("//", "//").replace(":", "%3A") if name == "github" else address
            assert shown in text, name
        assert str(tmp_path / "scratch") not in text
    assert '"hf://org/name@' in (tmp_path / "sarif").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="the fake is made out of Linux")
def test_no_adapter_is_passed_over_where_case_is_not_told_apart(specimen: Specimen, tmp_path: Path) -> None:
    files = files_of(specimen.directory)
    hub = FakeHub(
        {f"{folder}/{name}": path for folder in ("runs/a", "Runs/a", "runs/b") for name, path in files.items()}
    )
    asked = (ADDRESS, "--base", specimen.base, "--format", "json")
    paths = os.pathsep.join((str(elsewhere(tmp_path / "macos", "macos")), str(Path(__file__).parents[3])))
    with serving(hub):
        here = check_apart(hub, tmp_path, *asked)
        there = check_apart(hub, tmp_path, *asked, PYTHONPATH=paths)
    assert (here.status, len(json.loads(here.stdout)["adapters"])) == (0, 3)
    assert (there.status, there.stderr) == (2, "")
    (unread,) = json.loads(there.stdout)["unread"]
    assert "differs from another in case alone" in unread["message"]
