"""The targets' tables by themselves, and what a version, a class or a feature that isn't in them is: unknown."""

import pytest

from converter.errors import ConverterError
from converter.targets.features import FEATURES
from converter.targets.tables import ANY, NAMES, Target, target_named, wanted


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    return target_named(request.param)


def test_a_table_speaks_of_known_features_versions_and_classes(target: Target) -> None:
    assert set(target.features) <= set(FEATURES)
    for facts in target.features.values():
        for fact in facts:
            assert fact.verdict in {"exact", "refused", "silent"}
            assert target.evidence(fact.since)
            assert set(fact.on) <= set(target.architectures)
            assert fact.source
    assert all(target.evidence(form.since) for form in target.forms)


def test_what_is_measured_says_so(target: Target) -> None:
    said = {fact.source.split(";")[0].split(",")[0] for facts in target.features.values() for fact in facts}
    assert target.measured or "measured" not in said
    assert not target.measured or not target.features or "measured" in said


def test_the_newest_measured_version_is_meant_where_none_is_said() -> None:
    assert str(wanted("vllm")) == "vllm@0.32.0"
    assert str(wanted("ollama")) == "ollama@0.34.1"


@pytest.mark.parametrize("text", ["vlm", "vllm@", "", "VLLM"])
def test_a_target_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ConverterError, match=r"no target|names no version"):
        wanted(text)


@pytest.mark.parametrize(
    ("name", "version", "evidence"),
    [
        ("vllm", "0.31.0", "measured"),
        ("vllm", "0.33.0", "documented"),
        ("vllm", "0.31.1", None),
        ("vllm", "0.34.0", None),
        ("vllm", "0.32.0rc1", None),
        ("vllm", "main", None),
        ("ollama", "0.33.7", "documented"),
        ("ollama", "0.34.0", "documented"),
        ("ollama", "0.29.9", None),
        ("ollama", "0.35.0", None),
        ("tensorrt-llm", "main", "documented"),
    ],
)
def test_a_version_is_known_or_not(name: str, version: str, evidence: str | None) -> None:
    assert target_named(name).evidence(version) == evidence


def test_ollama_took_lora_files_for_a_while() -> None:
    ollama = target_named("ollama")
    assert {version: ollama.form(version).form for version in ("0.30.0", "0.34.0", "0.34.1")} == {
        "0.30.0": "lora",
        "0.34.0": "lora",
        "0.34.1": "model",
    }


def test_the_last_fact_that_fits_counts() -> None:
    vllm = target_named("vllm")
    head = {name: vllm.fact("head_lora_tied", "0.32.0", name) for name in (*vllm.architectures, "Other", ANY)}
    exact = {name for name, fact in head.items() if fact and fact.verdict == "exact"}
    assert exact == {"LlamaForCausalLM", "Qwen3ForCausalLM", "GraniteForCausalLM"}
    assert head["Other"] is None
