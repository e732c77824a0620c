"""adapter-check --target: what servers make of an adapter, and how that and the rules about GGUFs go together."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from converter.cli.check import main
from converter.report.formats import FORMATS
from tests.rules.specimens import EMBEDDING, HEAD, HIDDEN, VOCAB, Specimen, head_lora, lora, tensor, write_huggingface


@pytest.fixture
def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Specimen:
    """A plain adapter beside a tied Llama, in a repository that one is in."""
    (tmp_path / ".git").mkdir()
    write_huggingface(tmp_path / "base", architectures=["LlamaForCausalLM"])
    specimen = Specimen(tmp_path / "adapters" / "a", tmp_path / "base")
    specimen.write()
    monkeypatch.chdir(tmp_path)
    return specimen


def check(*options: str, base: str | None = "base") -> Result:
    given = ["--base", base] if base else []
    return CliRunner().invoke(main, ["adapters", *given, "--headers-only", *options], catch_exceptions=False)


def report(*options: str, base: str | None = "base") -> dict[str, Any]:
    (found,) = json.loads(check(*options, "--format", "json", base=base).stdout)["adapters"]
    return dict(found)


def with_head(it: Specimen) -> None:
    it.tensors |= head_lora()
    it.write()


@pytest.mark.usefixtures("it")
def test_a_plain_adapter_is_served_and_the_command_is_said() -> None:
    ran = check("--target", "vllm", "--target", "sglang")
    assert ran.exit_code == 0
    assert "fine for vllm@0.32.0, sglang@0.5.23" in " ".join(ran.stdout.split())
    assert "--enable-lora --max-lora-rank 8" in ran.stdout
    assert "What can be deployed" not in ran.stdout, "nobody asked for a GGUF"


def test_the_rank_that_vllm_is_started_with_is_one_that_it_takes(it: Specimen) -> None:
    it.config |= {"r": 20, "rank_pattern": {"q_proj": 40}}
    modules = {key.partition(".lora_")[0] for key in it.tensors}
    for module in modules:
        shapes = {key.rpartition(".")[0][-1]: it.tensors[key][1] for key in it.tensors if key.startswith(module)}
        it.tensors |= lora(module, shapes["B"][0], shapes["A"][1], rank=40 if "q_proj" in module else 20)
    it.write()
    assert report("--target", "vllm")["targets"][0]["needs"].count("--max-lora-rank 64") == 1


def test_what_is_larger_than_the_server_takes_is_refused(it: Specimen) -> None:
    it.config["r"] = 513
    it.write()
    assert "TG001" in report("--target", "vllm")["targets"][0]["blockers"]
    it.config["r"] = 4
    it.write()
    write_huggingface(Path("base"), architectures=["LlamaForCausalLM"], vocab_size=258_049)
    (finding,) = report("--target", "vllm")["findings"][-1:]
    assert (finding["code"], finding["where"]) == ("TG001", "vocab_size")
    write_huggingface(Path("base"), architectures=["Qwen2ForCausalLM"], vocab_size=258_049)
    assert report("--target", "vllm")["targets"][0]["passed"]


def test_a_tied_head_is_no_fault_for_a_server_that_serves_it(it: Specimen) -> None:
    with_head(it)
    assert check("--target", "vllm").exit_code == 0
    assert check().exit_code == 1
    assert check("--target", "llama.cpp-lora").exit_code == 1
    found = report("--target", "vllm", "--target", "llama.cpp-model")
    assert [target["passed"] for target in found["targets"]] == [True, False]
    assert found["targets"][1]["blockers"][0] == "HD001"
    ran = check("--target", "vllm", "--to", "lora")
    assert ran.exit_code == 1
    assert "refused for --to lora (1 error" in ran.stdout, "the deployment alone, not vllm"


@pytest.mark.parametrize("name", ["Gemma2ForCausalLM", "Qwen2ForCausalLM"])
def test_the_same_head_is_refused_by_another_class(it: Specimen, name: str) -> None:
    with_head(it)
    write_huggingface(Path("base"), architectures=[name])
    found = report("--target", "vllm")
    assert found["targets"][0]["blockers"] == ["TG001"]
    assert check("--target", "vllm").exit_code == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM was not tried on vLLM"),
        ({"architectures": None}, "names no single class"),
        ({"architectures": ["LlamaForCausalLM", "X"]}, "names no single class"),
        ({"architectures": ["LlamaForCausalLM"], "text_config": {"model_type": "llama"}}, "a model of several parts"),
    ],
)
@pytest.mark.usefixtures("it")
def test_an_unknown_class_is_no_yes(changes: dict[str, object], said: str) -> None:
    write_huggingface(Path("base"), **changes)
    ran = check("--target", "vllm", "--format", "json")
    assert ran.exit_code == 1
    assert said in ran.stdout
    assert "TG004" in ran.stdout


@pytest.mark.usefixtures("it")
def test_without_a_base_it_is_not_known() -> None:
    ran = check("--target", "vllm", base=None)
    assert ran.exit_code == 1
    assert "none was given (--base DIR; config.json alone is enough)" in " ".join(ran.stdout.split())


def test_a_base_that_the_adapter_names_clears_no_head(it: Specimen) -> None:
    with_head(it)
    it.config["base_model_name_or_path"] = str(it.base)
    it.write()
    ran = check("--target", "vllm", base=None)
    assert ran.exit_code == 1
    assert "by the adapter's word alone; name it with --base" in " ".join(ran.stdout.split())
    Path("adapter-check.toml").write_text("limits = { trust-named-base = true }\n", encoding="utf-8")
    assert check("--target", "vllm", base=None).exit_code == 0


@pytest.mark.usefixtures("it")
def test_an_unknown_version_is_no_yes() -> None:
    for version in ("0.31.7", "9.0.0", "main"):
        ran = check("--target", f"vllm@{version}")
        assert ran.exit_code == 1
        assert "TG005" in ran.stdout
    assert check("--target", "nope").exit_code == 2
    assert "there are llama.cpp-lora" in check("--target", "nope").stderr


def test_versions_differ(it: Specimen) -> None:
    it.config["alpha_pattern"] = {"q_proj": 64}
    it.write()
    found = report("--target", "vllm@0.31.0", "--target", "vllm")
    assert [target["blockers"] for target in found["targets"]] == [["TG002"], []]
    (finding,) = [finding for finding in found["findings"] if finding["code"] == "TG002"]
    assert finding["target"] == "vllm@0.31.0"
    assert "effect ratio 0.54" in finding["message"]


def test_a_feature_that_nobody_tried_is_no_yes(it: Specimen) -> None:
    it.config["use_qalora"] = True
    it.write()
    found = report("--target", "vllm", "--target", "sglang", "--target", "vllm@0.31.0")
    assert [target["blockers"] for target in found["targets"]] == [["TG001"], ["TG003"], ["TG003"]]


def test_what_is_wrong_with_the_adapter_itself_is_wrong_for_every_server(it: Specimen) -> None:
    it.config["r"] = 3
    it.write()
    found = report("--target", "vllm", "--target", "peft-merge")
    assert [target["blockers"] for target in found["targets"]] == [["LO005"], ["LO005"]]


def test_ollama_is_judged_by_what_it_takes_in_which_version(it: Specimen) -> None:
    it.config["use_dora"] = True
    it.write()
    found = report("--target", "ollama@0.34.0", "--target", "ollama")
    assert [target["form"] for target in found["targets"]] == ["lora", "model"]
    assert "LO015" in found["targets"][0]["blockers"]
    assert "rejects ADAPTER since 0.34.1" in found["targets"][1]["note"]
    page = check("--target", "ollama@0.34.0", "--target", "ollama", "--format", "html").stdout
    assert page.count("<code>ollama create</code> rejects ADAPTER since 0.34.1") == 1


# --- Policies, waivers, attestations, formats -------------------------------------------------------------------------


def test_a_policy_requires_targets(it: Specimen) -> None:
    Path("adapter-check.toml").write_text('targets = ["vllm"]\n', encoding="utf-8")
    with_head(it)
    assert check().exit_code == 0, "vllm alone is asked for"
    assert check("--to", "lora").exit_code == 1
    assert check("--target", "llama.cpp-lora").exit_code == 1
    assert [target["name"] for target in report("--target", "sglang")["targets"]] == ["sglang@0.5.23", "vllm@0.32.0"]
    more = '[[by-path]]\npath = "adapters/*"\ntargets = ["llama.cpp-lora"]\n'
    Path("adapter-check.toml").write_text(f'targets = ["vllm"]\n{more}', encoding="utf-8")
    assert check().exit_code == 1


def test_a_waiver_is_for_one_server(it: Specimen) -> None:
    it.tensors[f"{EMBEDDING}.token_adapter.trainable_tokens_delta"] = tensor(2, HIDDEN)
    it.config["trainable_token_indices"] = [3, 4]
    it.write()
    targets = ("--target", "vllm", "--target", "sglang")
    assert check(*targets).exit_code == 1
    assert check("--target", "vllm", "--baseline-until", "2999-01-01").exit_code == 0
    policy = Path("adapter-check.toml")
    assert 'target = "vllm@0.32.0"' in policy.read_text(encoding="utf-8")
    assert check("--target", "vllm").exit_code == 0
    assert check("--target", "vllm@0.31.0").exit_code == 1, "another version is another server"
    assert check(*targets).exit_code == 1
    text = policy.read_text(encoding="utf-8")
    policy.write_text(text.replace("vllm@0.32.0", "sglang@0.5.23"), encoding="utf-8")
    assert check("--target", "vllm").exit_code == 1, "waived for another server"
    policy.write_text(text.replace('target = "vllm@0.32.0"\n', ""), encoding="utf-8")
    ran = check("--target", "vllm")
    assert ran.exit_code == 1
    assert "unusable, has no target" in ran.stderr


@pytest.mark.usefixtures("it")
def test_an_attestation_says_for_which_servers(tmp_path: Path) -> None:
    def attest(*options: str) -> Result:
        return CliRunner().invoke(main, ["adapters", "--base", "base", *options], catch_exceptions=False)

    file = str(tmp_path / "a.jsonl")
    assert attest("--target", "vllm", "--attest", file).exit_code == 0
    statement = json.loads(Path(file).read_text(encoding="utf-8"))
    assert statement["predicate"]["targets"] == ["vllm@0.32.0"]
    assert statement["predicate"]["deployment"] is None
    assert "TG001" in statement["predicate"]["passedTests"]
    assert attest("--attest", file, "--exit-zero").exit_code == 0
    assert "TG001" not in json.loads(Path(file).read_text(encoding="utf-8"))["predicate"]["passedTests"]
    assert attest("--target", "vllm", "--attest", file).exit_code == 0
    assert attest("--target", "vllm", "--verify-attestation", file).exit_code == 0
    for others in (("--target", "sglang"), ("--target", "vllm", "--to", "lora"), ()):
        ran = attest(*others, "--verify-attestation", file)
        assert ran.exit_code == 1
        assert "it was judged for vllm@0.32.0" in ran.stdout


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_says_which_server(it: Specimen, name: str) -> None:
    it.tensors[f"{HEAD}.weight"] = tensor(VOCAB, HIDDEN)
    it.config["modules_to_save"] = ["lm_head"]
    it.write()
    ran = check("--target", "vllm", "--target", "peft-merge", "--format", name)
    assert ran.exit_code == 1
    assert "vllm@0.32.0" in ran.stdout
    assert "TG001" in ran.stdout
    if name in {"text", "json", "markdown", "html"}:
        assert "peft-merge@0.21.2" in ran.stdout
