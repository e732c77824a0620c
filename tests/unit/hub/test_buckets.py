"""Adapters and bases in buckets: by obstore, from moto's S3 and the same as Google's, over HTTP on this machine."""

import base64
import gc
import json
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import converter
from converter.cli import check, to_gguf
from converter.errors import COULD_NOT, NOTHING_LOOKED_AT
from fixtures.adapters import tiny_adapter
from fixtures.buckets import BEARER, SECRET, Answer, Buckets, serving_buckets
from fixtures.generated import write_safetensors
from fixtures.tiny import TinyModel
from fixtures.trainable import trainable
from tests.unit.hub.commands import Ran
from tests.unit.hub.test_judged_on_hub import FORMATS, files_of

BASE = TinyModel("llama")
HF = trainable(BASE)  # with a tokenizer
WEIGHTS = "model.safetensors"
ADAPTER = tiny_adapter("plain", BASE)
N_HEADER = 64_000  # of each file of weights at most, where its header has no more

Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def served() -> Iterator[Buckets]:
    with serving_buckets() as buckets:
        files = {f"bases/tide/{name}": path for name, path in files_of(HF).items()}
        files |= {f"loras/tide/{name}": path for name, path in files_of(ADAPTER).items()}
        buckets.fill("models", {**files, "bases/tide/pytorch_model.bin": b"evil", "README.md": b"#"})
        yield buckets


@pytest.fixture
def buckets(served: Buckets) -> Buckets:
    served.clear()
    return served


@pytest.fixture
def run(buckets: Buckets, tmp_path: Path) -> Run:
    def run(command: click.Command, *arguments: object, **variables: str | None) -> Ran:
        """Run a command with settings, a home and a cache of its own: ``tmp_path / "cache"``."""
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
                patch.delenv(name)
            for name, value in {**buckets.settings(tmp_path), **variables}.items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
            patch.setattr(tempfile, "tempdir", str(scratch))
            patch.chdir(tmp_path)
            result = CliRunner().invoke(command, [*map(str, arguments)])
            ran = Ran(result.exit_code, result.stdout, result.stderr)
            del result  # its traceback holds the base, and that its private directory
            gc.collect()
        assert [*scratch.iterdir()] == [], "left behind"
        assert not any(secret in ran.stdout + ran.stderr for secret in (SECRET, BEARER))
        return ran

    return run


def both(function: Any) -> Any:
    return pytest.mark.parametrize("scheme", ["s3", "gs"])(function)


def cached(tmp_path: Path) -> set[str]:
    """The files of the cache, by the end of their paths: what lies where, and its name."""
    return {"/".join(path.parts[-2:]) for path in (tmp_path / "cache").rglob("*") if path.is_file()}


def read_of(buckets: Buckets, name: str) -> list[str | None]:
    return [request.range for request in buckets.requests if request.path.endswith(f"/{name}")]


# --- What is read -----------------------------------------------------------------------------------------------------


@both
def test_an_adapter_is_judged_by_its_headers(buckets: Buckets, run: Run, tmp_path: Path, scheme: str) -> None:
    module, factor = "base_model.model.model.layers.0.self_attn.q_proj", struct.pack("<524288f", *[0.5] * 524_288)
    tensors = {
        f"{module}.lora_A.weight": ("F32", (64, 8192), factor),
        f"{module}.lora_B.weight": ("F32", (8192, 64), factor),
    }
    write_safetensors(tmp_path / "weights", tensors, {"format": "pt"})
    config = {"peft_type": "LORA", "r": 64, "lora_alpha": 64, "target_modules": ["q_proj"]}
    files: dict[str, bytes | Path] = {
        "adapter_model.safetensors": tmp_path / "weights",
        "adapter_config.json": json.dumps(config).encode(),
        "optimizer.pt": bytes(3_000_000),
        "runs/events": bytes(3_000_000),
    }
    buckets.fill(f"large-{scheme}", {f"a/b/{name}": held for name, held in files.items()})
    ran = run(check.main, f"{scheme}://large-{scheme}/a/b/", "--headers-only")
    assert (ran.status, ran.stderr) == (0, "")
    assert f"{scheme}://large-{scheme}/a/b: fine for --to lora" in ran.stdout
    assert read_of(buckets, "adapter_model.safetensors") == [f"bytes=0-{N_HEADER - 1}"]
    assert buckets.n_sent < N_HEADER + 10_000 < (tmp_path / "weights").stat().st_size
    assert read_of(buckets, "optimizer.pt") == []


@both
def test_a_lora_of_what_lies_in_buckets_is_the_local_one(
    buckets: Buckets, run: Run, tmp_path: Path, scheme: str
) -> None:
    names = (f"{scheme}://models/loras/tide", "--base", f"{scheme}://models/bases/tide")
    ran = run(to_gguf.main, *names, "--download", "-o", "lora.gguf")
    assert (ran.status, ran.stderr) == (0, "")
    assert run(to_gguf.main, ADAPTER, "--base", HF, "-o", "local.gguf").status == 0
    assert (tmp_path / "lora.gguf").read_bytes() == (tmp_path / "local.gguf").read_bytes()
    ranges = read_of(buckets, WEIGHTS)
    assert len(ranges) > 3
    assert all(ranges)
    objects = [request for request in buckets.requests if request.path.count("/") > 2]
    assert all(request.if_match for request in objects)
    assert read_of(buckets, "pytorch_model.bin") == []
    assert not [name for name in cached(tmp_path) if name.endswith(WEIGHTS) and "adapter" not in name]
    assert f"--base {scheme}://models/bases/tide --download" in ran.stdout


@both
def test_a_model_of_what_lies_in_buckets_is_the_local_one(
    buckets: Buckets, run: Run, tmp_path: Path, scheme: str
) -> None:
    names = (f"{scheme}://models/loras/tide", "--base", f"{scheme}://models/bases/tide", "--to", "model")
    here = {}
    for name, path in (("loras", ADAPTER), ("bases", HF)):  # a model is named after its directories
        (tmp_path / name).mkdir()
        here[name] = tmp_path / name / "tide"
        here[name].symlink_to(path)
    ran = run(to_gguf.main, *names, "--download", "-o", "model.gguf")
    assert (ran.status, ran.stderr) == (0, "")
    local = run(to_gguf.main, here["loras"], "--base", here["bases"], "--to", "model", "-o", "local.gguf")
    assert local.status == 0
    assert (tmp_path / "model.gguf").read_bytes() == (tmp_path / "local.gguf").read_bytes()
    assert {"tide/config.json", f"tide/{WEIGHTS}", "tide/adapter_model.safetensors"} <= cached(tmp_path)
    assert not {"tide/pytorch_model.bin", "tide/README.md"} & cached(tmp_path)
    buckets.clear()
    again = run(to_gguf.main, *names, "--download", "-o", "again.gguf")
    assert again.status == 0
    assert read_of(buckets, WEIGHTS) == []  # it lies in the cache
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "local.gguf").read_bytes()


def test_what_was_replaced_since_is_fetched_again(buckets: Buckets, run: Run, tmp_path: Path) -> None:
    files = {f"lora/{name}": path for name, path in files_of(ADAPTER).items()}
    buckets.fill("renewed", files)
    command = ("s3://renewed/lora", "--base", BASE.gguf, "--download", "-o")
    assert run(to_gguf.main, *command, "first.gguf").status == 0
    other = tiny_adapter("plain", BASE).joinpath("adapter_model.safetensors").read_bytes()
    changed = other[:-4] + struct.pack("<f", 0.25)
    assert changed != other
    buckets.put("renewed", "lora/adapter_model.safetensors", changed)
    assert run(to_gguf.main, *command, "second.gguf").status == 0
    first, second = ((tmp_path / name).read_bytes() for name in ("first.gguf", "second.gguf"))
    assert len(first) == len(second)
    assert first != second


@both
def test_a_base_in_a_bucket_is_judged_without_its_weights(run: Run, buckets: Buckets, scheme: str) -> None:
    base = f"{scheme}://models/bases/tide"
    ours = run(check.main, ADAPTER, "--base", base, "--download", "--format", "json")
    theirs = run(check.main, ADAPTER, "--base", HF, "--format", "json")
    assert (ours.status, ours.stderr) == (theirs.status, "")
    (report,), (local,) = json.loads(ours.stdout)["adapters"], json.loads(theirs.stdout)["adapters"]
    assert [one["code"] for one in report["findings"]] == [one["code"] for one in local["findings"]]
    assert report["deployments"][0]["command"].startswith(f"adapter-to-gguf {ADAPTER} --base {base} --download")
    assert all(read_of(buckets, WEIGHTS))


def test_adapters_below_are_found_as_in_a_directory(run: Run) -> None:
    ran = run(check.main, "s3://models", "--base", BASE.gguf)
    assert ran.status == 0, ran
    assert "s3://models/loras/tide: fine for --to lora" in ran.stdout
    assert f"adapter-to-gguf s3://models/loras/tide --base {BASE.gguf} --download -o lora.gguf" in ran.stdout


def test_every_format_names_the_address(buckets: Buckets, run: Run, tmp_path: Path) -> None:
    config = json.loads((ADAPTER / "adapter_config.json").read_bytes()) | {"odd_field": 1}
    files = {**files_of(ADAPTER), "adapter_config.json": json.dumps(config).encode()}
    buckets.fill("reported", {f"lora/{name}": held for name, held in files.items()})
    outputs = [f"--format={name}={tmp_path / name}" for name in FORMATS]
    assert run(check.main, "s3://reported/lora", "s3://none-such", "--base", BASE.gguf, *outputs).status == COULD_NOT
    for name in FORMATS:
        text = (tmp_path / name).read_text(encoding="utf-8")
        for address in ("s3://reported/lora", "s3://none-such"):
            assert (address.replace(":", "%3A") if name == "github" else address) in text, name
        assert str(tmp_path / "scratch") not in text


def test_a_pattern_of_a_policy_matches_the_address(run: Run, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[limits]\nsize = "1 KB"\n', encoding="utf-8")
    command = (check.main, "s3://models/loras/tide", "--base", BASE.gguf, "--config", policy)
    assert "PO002" in run(*command).stdout
    policy.write_text(f"{policy.read_text(encoding='utf-8')}[[by-path]]\npath = 's3://models/*'\nignore = ['PO']\n")
    assert run(*command).status == 0


def test_from_python(buckets: Buckets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in buckets.settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    adapter = converter.read_adapter("s3://models/loras/tide")
    assert converter.check(adapter, converter.read_base(BASE.gguf)).passed
    with pytest.raises(converter.ConverterError, match="its numbers were not fetched"):
        converter.plan(adapter, converter.read_base(BASE.gguf))


# --- What changes while it is read ------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("to", ["lora", "model"])
def test_an_object_that_is_replaced_midway_ends_the_run(
    buckets: Buckets, run: Run, tmp_path: Path, scheme: str, to: str
) -> None:
    bucket = f"moving-{scheme}-{to}"
    buckets.fill(bucket, {f"base/{name}": path for name, path in files_of(HF).items()})
    weights = (HF / WEIGHTS).read_bytes()

    def replace() -> None:
        if len(read_of(buckets, WEIGHTS)) == 2 or to == "model":  # the header is read, the norms are not
            buckets.put(bucket, f"base/{WEIGHTS}", weights[:-1] + b"\1")

    options = (ADAPTER, "--base", f"{scheme}://{bucket}/base", "--to", to, "--download", "-o", "x.gguf")
    buckets.faults[WEIGHTS] = replace
    ran = run(to_gguf.main, *options)
    assert (ran.status, len(ran.lines), ran.stdout) == (COULD_NOT, 1, "")
    assert f"{scheme}://{bucket}/base/{WEIGHTS}: was replaced while it was read; run it again" in ran.stderr
    assert not (tmp_path / "x.gguf").exists()
    assert not {name for name in cached(tmp_path) if name.endswith((WEIGHTS, "config.json"))}
    buckets.clear()
    assert run(to_gguf.main, *options).status == 0


def test_an_answer_that_is_cut_leaves_nothing(
    buckets: Buckets, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what came whole before it is kept."""
    from converter.hub import bucket

    monkeypatch.setattr(bucket, "_PART_NBYTES", 10_000)
    buckets.faults[f"bases/tide/{WEIGHTS}"] = lambda: (
        (503, b"<Error><Code>SlowDown</Code></Error>") if len(read_of(buckets, WEIGHTS)) > 3 else None
    )
    options = (ADAPTER, "--base", "s3://models/bases/tide", "--to", "model", "--download", "-o", "x.gguf")
    ran = run(to_gguf.main, *options)
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert "has a fault or too much to do (SlowDown, status 503); try again later" in ran.stderr
    assert cached(tmp_path) == set()
    buckets.clear()
    assert run(to_gguf.main, *options).status == 0
    (path,) = (tmp_path / "cache").rglob(WEIGHTS)
    assert path.read_bytes() == (HF / WEIGHTS).read_bytes()
    assert len(read_of(buckets, WEIGHTS)) == -(-path.stat().st_size // 10_000)


# --- What can't be had ------------------------------------------------------------------------------------------------


def xml(status: int, code: str) -> Callable[[], Answer]:
    held = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message><AWSAccessKeyId>{SECRET}"
    return lambda: (status, f"{held}</AWSAccessKeyId></Error>".encode())


ANSWERS: dict[str, tuple[Callable[[], Answer], str]] = {
    "denied": (xml(403, "AccessDenied"), "may not be read with these credentials (AccessDenied, status 403)"),
    "no such key": (xml(403, "InvalidAccessKeyId"), "the credentials are not taken (InvalidAccessKeyId, status 403)"),
    "expired": (xml(400, "ExpiredToken"), "the credentials are not taken (ExpiredToken, status 400)"),
    "elsewhere": (xml(301, "PermanentRedirect"), "the bucket lies in another region; name it in AWS_REGION"),
    "known where": (
        lambda: (400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>"),
        "the bucket lies in another region, eu-west-1; name it in AWS_REGION",
    ),
    "no list": (lambda: (200, b"<html>"), "gives an answer that isn't understood"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_is_refused_is_one_line(buckets: Buckets, run: Run, case: str) -> None:
    buckets.faults["/models"], said = ANSWERS[case]
    ran = run(check.main, "s3://models/loras/tide")
    assert (ran.status, len(ran.lines), ran.stdout) == (COULD_NOT, 1, "")
    assert said in ran.stderr


@both
def test_no_such_bucket(run: Run, scheme: str) -> None:
    ran = run(check.main, f"{scheme}://none-such/loras")
    assert (ran.status, ran.stderr) == (COULD_NOT, f"adapter-check: {scheme}://none-such/loras: no such bucket\n")


@both
def test_nobody_there(run: Run, scheme: str) -> None:
    nowhere = "http://127.0.0.1:9"
    ran = run(check.main, f"{scheme}://models/loras", AWS_ENDPOINT_URL=nowhere, GOOGLE_BASE_URL=nowhere)
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert "http://127.0.0.1:9 can't be reached" in ran.stderr


def test_no_adapter_there_is_status_3(run: Run) -> None:
    ran = run(check.main, "s3://models/nothing")
    assert (ran.status, len(ran.lines)) == (NOTHING_LOOKED_AT, 1)
    assert "holds no adapter" in ran.stderr


BASES = {
    "s3://models/loras": "no config.json; wanted a Hugging Face model",
    "s3://ggufs/x": "holds GGUFs and no config.json; download the one that you serve (`aws s3 cp s3://ggufs/x/q4.gguf",
    "gs://ggufs/x/q4.gguf": "(`gcloud storage cp gs://ggufs/x/q4.gguf .`), and give its path",
}


@pytest.mark.parametrize("name", BASES)
def test_what_is_no_base(buckets: Buckets, run: Run, name: str) -> None:
    buckets.fill("ggufs", {"x/q4.gguf": b"GGUF"})
    ran = run(to_gguf.main, ADAPTER, "--base", name, "--download", "-o", "x.gguf")
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert BASES[name] in ran.stderr


@both
def test_nothing_is_asked_where_nobody_says_so(buckets: Buckets, run: Run, scheme: str) -> None:
    base = f"{scheme}://models/bases/tide"
    for command, *arguments in (
        (check.main, ADAPTER, "--base", base),
        (to_gguf.main, ADAPTER, "--base", base),
        (to_gguf.main, base, "--base", HF),
    ):
        ran = run(command, *arguments)
        assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
        assert f"{base}: lies in a bucket, which is read with --download alone" in ran.stderr
    assert buckets.requests == []


@pytest.mark.parametrize(
    "text", ["s3://", "s3://B", "gs://a..b/c", "s3://models//x", "s3://models/a/../b", "gs://models/.."]
)
def test_what_is_no_address(buckets: Buckets, run: Run, text: str) -> None:
    ran = run(check.main, text)
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert "is no name of a bucket" in ran.stderr or "is no prefix that could be a directory" in ran.stderr
    assert buckets.requests == []


def test_a_name_that_leads_out_is_refused(buckets: Buckets, run: Run, tmp_path: Path) -> None:
    files = {f"lora/{name}": path for name, path in files_of(ADAPTER).items()}
    buckets.fill("leading-out", {**files, "lora/..\\..\\x.pt": b"evil"})
    for command, *options in ((check.main,), (to_gguf.main, "--base", BASE.gguf, "--download")):
        ran = run(command, "s3://leading-out/lora", *options)
        assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
        assert "impossible name" in ran.stderr
    assert cached(tmp_path) == set()


def test_a_key_that_no_file_can_have(buckets: Buckets, run: Run) -> None:
    buckets.fill("odd", {"lora//adapter_config.json": b"{}"})
    ran = run(check.main, "s3://odd/lora")
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert "a key there has an empty part" in ran.stderr


# --- Credentials ------------------------------------------------------------------------------------------------------

NO_KEYS: dict[str, str | None] = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}


def test_a_profile_is_taken_with_its_endpoint(buckets: Buckets, run: Run, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"[profile team]\nregion = eu-west-1\nendpoint_url = {buckets.endpoint}\n")
    (tmp_path / "keys").write_text(f"[team]\naws_access_key_id = TEAMKEY\naws_secret_access_key = {SECRET}\n")
    files = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "keys")}
    ran = run(
        check.main, "s3://models/loras/tide", **{**NO_KEYS, **files, "AWS_PROFILE": "team", "AWS_ENDPOINT_URL": None}
    )
    assert ran.status == 0, ran
    assert all("Credential=TEAMKEY/" in request.authorization for request in buckets.requests)
    assert all("/eu-west-1/s3/" in request.authorization for request in buckets.requests)
    buckets.clear()
    assert run(check.main, "s3://models/loras/tide", AWS_REGION="eu-central-1").status == 0
    assert all("/eu-central-1/s3/" in request.authorization for request in buckets.requests)
    ran = run(check.main, "s3://models/loras/tide", **{**NO_KEYS, **files, "AWS_PROFILE": "other"})
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert "AWS's settings can't be used: The config profile (other) could not be found" in ran.stderr


def test_credentials_that_end_midway_are_asked_for_again(buckets: Buckets, run: Run, tmp_path: Path) -> None:
    """By a process that a profile names, as single sign-on is often wired; here it gives them ``n`` times."""
    given = {"Version": 1, "AccessKeyId": "SHORT", "SecretAccessKey": SECRET, "SessionToken": "t"}
    given["Expiration"] = (datetime.now(UTC) + timedelta(minutes=2)).isoformat()  # which botocore renews at every turn
    program = tmp_path / "give.py"
    program.write_text(
        f"import pathlib, sys\nleft = pathlib.Path({str(tmp_path / 'left')!r})\nn = int(left.read_text())\n"
        f"left.write_text(str(n - 1))\nprint({json.dumps(given)!r}) if n > 0 else sys.exit('{SECRET}')\n"
    )
    (tmp_path / "config").write_text(f"[profile short]\ncredential_process = {sys.executable} {program}\n")
    variables = {**NO_KEYS, "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "short"}
    (tmp_path / "left").write_text("100")
    assert run(check.main, "s3://models/loras/tide", **variables).status == 0
    assert all("Credential=SHORT/" in request.authorization for request in buckets.requests)
    for n in (0, 2):
        (tmp_path / "left").write_text(str(n))
        ran = run(check.main, "s3://models/loras/tide", **variables)
        assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
        assert (
            "the credentials have ended, and no new ones come" if n else "AWS's credentials can't be had"
        ) in ran.stderr


def test_a_role_is_assumed(buckets: Buckets, run: Run, tmp_path: Path) -> None:
    keys = f"aws_access_key_id = OWN\naws_secret_access_key = {SECRET}\n"
    role = "role_arn = arn:aws:iam::123456789012:role/reader\nsource_profile = own\nregion = us-east-1\n"
    (tmp_path / "config").write_text(f"[profile own]\n{keys}[profile reader]\n{role}")
    variables = {**NO_KEYS, "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "reader"}
    assert run(check.main, "s3://models/loras/tide", **variables).status == 0
    asked = [request.authorization.partition("Credential=")[2].partition("/")[0] for request in buckets.requests]
    assert asked[0] == "OWN"  # of the service that gives the role's
    assert "OWN" not in asked[1:]
    buckets.faults["/"] = xml(403, "AccessDenied")
    ran = run(check.main, "s3://models/loras/tide", **variables)
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert "AWS's credentials can't be had from where the profile says" in ran.stderr


def test_without_credentials_it_says_how_to_give_them(buckets: Buckets, run: Run) -> None:
    ran = run(check.main, "s3://models/loras/tide", **NO_KEYS)
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert "no credentials for AWS; run `aws configure`" in ran.stderr
    assert buckets.requests == []


def test_a_public_bucket_is_read_unsigned(buckets: Buckets, run: Run) -> None:
    buckets.faults["/models"] = xml(403, "AccessDenied")
    assert run(check.main, "s3://models/loras", **NO_KEYS, AWS_SKIP_SIGNATURE="true").status == COULD_NOT
    assert [request.authorization for request in buckets.requests] == [""]


def test_google_takes_the_bearer(buckets: Buckets, run: Run) -> None:
    assert run(check.main, "gs://models/loras/tide").status == 0
    assert {request.authorization for request in buckets.requests} == {f"Bearer {BEARER}"}
    ran = run(check.main, "gs://models/loras", GOOGLE_BEARER_TOKEN=None, GOOGLE_SKIP_SIGNATURE="true")
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert "the credentials are not taken (AuthenticationRequired, status 401); run `gcloud auth" in ran.stderr
    ran = run(check.main, "gs://models/loras", GOOGLE_BEARER_TOKEN=None, GOOGLE_APPLICATION_CREDENTIALS="/none.json")
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert "Google's settings can't be used" in ran.stderr


def test_without_google_credentials_it_says_how_to_give_them(buckets: Buckets, run: Run) -> None:
    nowhere = {"GCE_METADATA_HOST": "127.0.0.1:9", "GCE_METADATA_IP": "127.0.0.1:9"}  # where a machine has an account
    ran = run(check.main, "gs://models/loras", **nowhere, GOOGLE_BEARER_TOKEN=None)
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert "no credentials that Google Cloud takes; run `gcloud auth application-default login`" in ran.stderr
    assert buckets.requests == []


def test_google_takes_the_key_of_a_service_account(buckets: Buckets, run: Run, tmp_path: Path) -> None:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    held = {
        "type": "service_account",
        "client_email": "ci@x.example",
        "private_key_id": "1",
        "private_key": pem.decode(),
    }
    (tmp_path / "key.json").write_text(json.dumps(held), encoding="utf-8")
    variables = {"GOOGLE_BEARER_TOKEN": None, "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    assert run(check.main, "gs://models/loras/tide", **variables).status == 0
    (sent,) = {request.authorization.removeprefix("Bearer ") for request in buckets.requests}
    claims = json.loads(base64.urlsafe_b64decode(sent.split(".")[1] + "=="))
    assert claims["iss"] == "ci@x.example"


@pytest.mark.parametrize("name", ["obstore", "botocore"])
def test_without_the_extra_it_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    ran = run(check.main, "s3://models/loras")
    assert (ran.status, len(ran.lines)) == (COULD_NOT, 1)
    assert f"needs {name}, which is not installed; run pip install '.[buckets]'" in ran.stderr
