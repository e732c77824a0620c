"""Adapters of PEFT's other methods: what is read of them, and which deployments stay open."""

from pathlib import Path

import pytest

from converter.derive.peft_methods import PROMPTS, REBUILT, ROUTERS, peft_method
from converter.diagnostics import LORA, MODEL
from tests.rules.specimens import HIDDEN, PREFIX, RANK, UP, VOCAB, Specimen, codes, open_for, tensor, write_gguf

HEAD = f"{PREFIX}.lm_head"


@pytest.fixture
def loha(specimen: Specimen) -> Specimen:
    """A LoHa on one module."""
    specimen.config = {"peft_type": "LOHA", "r": 0, "rank_pattern": {"up": [True]}, "target_modules": ["down_proj"]}
    specimen.tensors = {f"{UP}.hada_w{i}_{part}": tensor(HIDDEN, RANK) for i in (1, 2) for part in "ab"}
    return specimen


def test_a_method_that_peft_merges_is_open_for_models(loha: Specimen) -> None:
    loha.write()
    assert codes(loha.report()) == ["CF005"]
    assert open_for(loha.report()) == set(MODEL)


def test_an_unknown_key_and_an_unknown_field_are_named(loha: Specimen) -> None:
    loha.config["scale_by"] = 3
    loha.tensors[f"{UP}.hada_w3_a"] = tensor(HIDDEN, RANK)
    loha.tensors[f"{UP}.lora_A.weight"] = tensor(RANK, HIDDEN)
    loha.write()
    found = {(finding.code, finding.where) for finding in loha.report().findings}
    assert {("CF004", "scale_by"), ("LO004", f"{UP}.hada_w3_a"), ("LO004", f"{UP}.lora_A.weight")} <= found


def test_a_head_of_a_tied_base_needs_its_own_tensor(loha: Specimen) -> None:
    loha.config["target_modules"] = ["down_proj", "lm_head"]
    loha.tensors |= {f"{HEAD}.hada_w1_a": tensor(VOCAB, RANK), f"{HEAD}.hada_w1_b": tensor(RANK, HIDDEN)}
    loha.write()
    assert codes(loha.report()) == ["CF005", "HD002"]
    assert open_for(loha.report()) == {"untie-model"}


def test_a_module_that_the_base_lacks_is_named(loha: Specimen) -> None:
    loha.tensors |= {key.replace("layers.1", "layers.9"): value for key, value in loha.tensors.items()}
    loha.write()
    assert "BM001" in codes(loha.report())


def test_whole_numbers_are_no_fault_of_a_method_that_keeps_indices(loha: Specimen) -> None:
    loha.config["peft_type"] = "SHIRA"
    loha.config.pop("rank_pattern")
    loha.tensors = {f"{UP}.shira_indices": ("I64", (2, 1), bytes(16)), f"{UP}.shira_weight": tensor(1)}
    loha.write()
    assert codes(loha.report()) == ["CF005"]


@pytest.mark.parametrize("peft_type", sorted(PROMPTS | ROUTERS | REBUILT | {"BONE"}))
def test_a_method_that_is_not_converted_is_closed_for_all(peft_type: str, loha: Specimen) -> None:
    assert peft_method(peft_type) is None
    loha.config = {"peft_type": peft_type, "adapters": {"a": "b"}, "r": 0}
    loha.write()
    assert codes(loha.report()) == ["CF005"]
    assert open_for(loha.report()) == set()


def test_trained_norms_are_saved_norms(specimen: Specimen) -> None:
    specimen.config = {"peft_type": "LN_TUNING", "target_modules": ["norm"]}
    specimen.tensors = {f"{PREFIX}.model.norm.ln_tuning_layers.weight": tensor(HIDDEN)}
    specimen.write()
    assert codes(specimen.report()) == ["LO007"]
    assert open_for(specimen.report()) == set(MODEL)


@pytest.mark.parametrize(("seed", "expected"), [(1, ["HD012"]), (2, ["HD012", "LO017"])])
def test_trained_tokens_are_token_rows(seed: int, expected: list[str], specimen: Specimen) -> None:
    """On a tied base PEFT saves them twice, and what differs is no copy."""
    specimen.config = {"peft_type": "TRAINABLE_TOKENS", "token_indices": [3, 5], "target_modules": ["embed_tokens"]}
    specimen.tensors = {
        f"{PREFIX}.model.embed_tokens.trainable_tokens_delta": tensor(2, HIDDEN, seed=1),
        f"{PREFIX}.lm_head.trainable_tokens_delta": tensor(2, HIDDEN, seed=seed),
    }
    specimen.write()
    assert codes(specimen.report()) == expected


def test_a_bias_tuner_needs_biases_that_are_read(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_gguf(tmp_path / "qwen2.gguf", "qwen2")
    specimen.config = {"peft_type": "BEFT", "target_modules": ["q_proj", "down_proj"]}
    for module, expected in (("self_attn.q_proj", ["CF005"]), ("mlp.down_proj", ["CF005", "GG004"])):
        specimen.tensors = {f"{PREFIX}.model.layers.0.{module}.beft_bias": tensor(HIDDEN)}
        specimen.write()
        assert codes(specimen.report()) == expected
    assert open_for(specimen.report()).isdisjoint(LORA)
