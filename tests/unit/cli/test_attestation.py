"""What a judgement attests, and that it holds for these bytes, this policy and this deployment alone."""

import base64
import json
from datetime import date, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from converter.cli.check import main
from converter.digests import directory_digest
from tests.rules.specimens import Specimen, head_lora, write_gguf

TODAY = date.today()  # noqa: DTZ011


@pytest.fixture
def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Specimen:
    (tmp_path / ".git").mkdir()
    specimen = Specimen(tmp_path / "a", write_gguf(tmp_path / "base.gguf", seed=1))
    specimen.write()
    monkeypatch.chdir(tmp_path)
    return specimen


def run(*options: str) -> Result:
    return CliRunner().invoke(main, ["a", *options])


def attest(*options: str) -> Result:
    return run("--base", "base.gguf", "--attest", "a.jsonl", *options)


def verify(*options: str) -> Result:
    return run("--verify-attestation", "a.jsonl", *options)


def test_the_subject_is_that_of_model_signing(tmp_path: Path) -> None:
    """The digest that model-signing 1.1.1 gives such a directory (hashing.Config().hash, then its Payload)."""
    files = {"adapter_config.json": "{}", "a/b.txt": "1", "a-b.txt": "2", "a.txt": "3", "B.txt": "4", ".hidden": "5",
             ".gitignore": "x", ".git/config": "y", "sub/.gitignore": "6", "ä.txt": "7"}  # fmt: skip
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert directory_digest(tmp_path) == "68441a1e9914679cc683059069e8644052f64005db744c6a6bf0d39fd7eb25d6"


def test_a_statement_is_in_totos(it: Specimen) -> None:
    assert attest().exit_code == 0
    (line,) = Path("a.jsonl").read_text(encoding="utf-8").splitlines()
    found = json.loads(line)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert found["subject"] == [{"name": "a", "digest": {"sha256": directory_digest(it.directory)}}]
    assert found["predicate"]["result"] == "PASSED"
    assert "HD001" in found["predicate"]["passedTests"]
    assert verify().exit_code == 0
    assert verify("--base", "base.gguf").exit_code == 0


def test_one_byte_voids_it(it: Specimen) -> None:
    attest()
    data = bytearray(it.weights.read_bytes())
    data[-1] ^= 1
    it.weights.write_bytes(data)
    ran = verify()
    assert ran.exit_code == 1
    assert "not attested, nothing is attested of sha256:" in ran.stdout


def test_what_failed_is_attested_as_failed(it: Specimen) -> None:
    it.tensors |= head_lora()
    it.write()
    assert attest().exit_code == 1
    predicate = json.loads(Path("a.jsonl").read_text(encoding="utf-8"))["predicate"]
    assert (predicate["result"], predicate["failedTests"]) == ("FAILED", ["HD001"])
    ran = verify()
    assert ran.exit_code == 1
    assert "it failed" in ran.stdout


@pytest.mark.usefixtures("it")
def test_it_is_of_one_policy_one_deployment_and_one_base() -> None:
    attest()
    assert "it was judged for --to lora, not for --to model" in verify("--to", "model").stdout
    other = write_gguf(Path("other.gguf"), seed=2)
    assert "it was judged on another base" in verify("--base", str(other)).stdout
    Path("adapter-check.toml").write_text("[limits]\nrank = 8\n", encoding="utf-8")
    ran = verify()
    assert ran.exit_code == 1
    assert "it was judged by another policy" in ran.stdout
    assert verify("--no-config").exit_code == 0
    assert attest().exit_code == 0
    assert verify().exit_code == 0
    Path("adapter-check.toml").write_text("[limits]\nrank = 9\n", encoding="utf-8")
    assert verify().exit_code == 1


def test_waivers_are_told_and_end(it: Specimen) -> None:
    it.tensors |= head_lora()
    it.write()
    run("--base", "base.gguf", "--baseline-until", str(TODAY))
    assert attest().exit_code == 0
    found = json.loads(Path("a.jsonl").read_text(encoding="utf-8"))
    assert found["predicate"]["waivedTests"][0]["code"] == "HD001"
    assert verify().exit_code == 0
    found["predicate"]["waivedUntil"] = str(TODAY - timedelta(days=1))
    Path("a.jsonl").write_text(json.dumps(found), encoding="utf-8")
    ran = verify()
    assert ran.exit_code == 1
    assert "a waiver that it passed by ended on" in ran.stdout


@pytest.mark.usefixtures("it")
def test_a_signed_envelope_is_opened() -> None:
    attest()
    payload = base64.b64encode(Path("a.jsonl").read_bytes().strip()).decode()
    envelope = {"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": [{"sig": ""}]}
    Path("a.jsonl").write_text(json.dumps(envelope), encoding="utf-8")
    assert verify().exit_code == 0


@pytest.mark.usefixtures("it")
@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"_type": "x"}', '{"payloadType": "application/vnd.in-toto+json"}'])
def test_what_is_no_statement_ends_the_run(text: str) -> None:
    Path("a.jsonl").write_text(text, encoding="utf-8")
    ran = verify()
    assert ran.exit_code == 2
    assert "a.jsonl: is no file of in-toto statements" in ran.stderr


@pytest.mark.usefixtures("it")
@pytest.mark.parametrize("subject", [None, [], [{}], [{"digest": 3}], "x"])
def test_odd_subjects_attest_nothing(subject: object) -> None:
    data = {"_type": "https://in-toto.io/Statement/v1", "subject": subject, "predicateType": "x"}
    Path("a.jsonl").write_text(json.dumps(data), encoding="utf-8")
    assert verify().exit_code == 1


@pytest.mark.usefixtures("it")
def test_the_policy_is_attested_whole() -> None:
    for option in (("--ignore", "HD"), ("--select", "ST"), ("--headers-only",)):
        ran = attest(*option)
        assert ran.exit_code == 2
        assert "--attest attests the policy whole" in " ".join(ran.stderr.split())
    ran = run("--base", "base.gguf", "--attest", "a/in.jsonl")
    assert ran.exit_code == 2
    assert "lies in the adapter that it attests" in ran.stderr
    assert not Path("a/in.jsonl").exists()
