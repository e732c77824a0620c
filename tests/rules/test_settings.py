"""Settings of a base that no model can be computed with, and tokens that llama.cpp can't tell apart."""

from pathlib import Path
from typing import Any

import pytest

from fixtures.tokenizers import CONTROL, NORMAL, metadata, with_metadata
from tests.rules.bad.checkpoints import on_checkpoint
from tests.rules.bad.tokens import TOKENS, TOOL, save_ends, with_tokens, write_tokenizer
from tests.rules.specimens import VOCAB, Specimen, codes, write_gguf, write_huggingface

NAN, INFINITY = float("nan"), float("inf")
MOE = {"num_experts": 4, "moe_intermediate_size": 24, "norm_topk_prob": True}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64, "factor": 8.0}
LONGROPE = {"long_factor": [1.0] * 8, "short_factor": [1.0] * 8, "original_max_position_embeddings": 64}


def rope(kind: str, **fields: object) -> dict[str, object]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **fields}}


def found(specimen: Specimen, model_type: str, config: dict[str, Any]) -> bool:
    specimen.write()
    specimen.base = write_huggingface(specimen.directory.with_name("base"), model_type=model_type, **config)
    return "BM046" in codes(specimen.report(values=False))


WRONG: list[tuple[str, dict[str, Any]]] = [
    *(("llama", {"rms_norm_eps": value}) for value in (-1, -1e-6, 0, NAN, INFINITY, 1e39, True)),
    *(("llama", {"max_position_embeddings": value}) for value in (0, -1, 1.5, 2**31, NAN)),
    *(("qwen3_moe", {**MOE, "num_experts_per_tok": value}) for value in (0, 5, 100, 1.5, True, -1)),
    *(("llama", {"rope_theta": value}) for value in (0, -1.0, NAN, INFINITY, 10**400)),
    *(("gemma3_text", {"rope_local_base_freq": value}) for value in (0, -1.0, NAN)),
    *(("gemma3_text", {"final_logit_softcapping": value}) for value in (0, -1, NAN, "30")),
    *(("gemma3_text", {"sliding_window": value}) for value in (-1, 1.5)),
    *(("granite", {"logits_scaling": value}) for value in (0, NAN, INFINITY)),
    *(("llama", rope("linear", factor=value)) for value in (0, -2, NAN, "2")),
    *(("llama", rope("yarn", factor=2.0, attention_factor=value)) for value in (0, -1, NAN)),
    *(("llama", rope("yarn", factor=2.0, original_max_position_embeddings=value)) for value in (1, 0.5, -4)),
    *(("llama", rope("llama3", **{**LLAMA3, name: value})) for name in LLAMA3 for value in (0, -1, NAN)),
    ("llama", rope("llama3", **{**LLAMA3, "high_freq_factor": 1.0})),
    *(("phi3", rope("longrope", **{**LONGROPE, name: [1.0] * 7})) for name in ("long_factor", "short_factor")),
    *(("phi3", rope("longrope", **{**LONGROPE, name: [0.0] * 8})) for name in ("long_factor", "short_factor")),
    ("phi3", rope("longrope", **{**LONGROPE, "long_factor": 2.0})),
    *(("llama", {"num_attention_heads": 4, "num_key_value_heads": value}) for value in (3, 8)),
    *(("phi3", {"partial_rotary_factor": value}) for value in (0, 2.0, NAN, 0.01, 0.2)),
]
RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"rms_norm_eps": 1e-6, "rope_theta": 500000}),
    ("llama", rope("linear", factor=2)),
    ("llama", rope("yarn", factor=2.0, original_max_position_embeddings=64)),
    ("llama", rope("llama3", **LLAMA3)),
    ("phi3", rope("longrope", **LONGROPE)),
    ("phi3", {"partial_rotary_factor": 0.75}),
    *(("llama", {"num_attention_heads": 6, "num_key_value_heads": value}) for value in (1, 2, 6)),
    ("qwen3_moe", {**MOE, "num_experts_per_tok": 4}),
    ("gemma3_text", {"final_logit_softcapping": 30, "sliding_window": 512}),
    ("gemma3_text", {"final_logit_softcapping": None}),
    ("granite", {"logits_scaling": 8.0, "residual_multiplier": 0.22}),
    ("gpt2", {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64}),
]


@pytest.mark.parametrize(("model_type", "config"), WRONG, ids=str)
def test_what_no_model_can_be_computed_with_is_refused(
    model_type: str, config: dict[str, Any], specimen: Specimen
) -> None:
    assert found(specimen, model_type, config)


@pytest.mark.parametrize(("model_type", "config"), RIGHT, ids=str)
def test_what_models_have_is_not(model_type: str, config: dict[str, Any], specimen: Specimen) -> None:
    assert not found(specimen, model_type, config)


@pytest.mark.parametrize(
    ("architecture", "key", "value"),
    [
        *(("llama", "attention.layer_norm_rms_epsilon", value) for value in (-1.0, 0.0, NAN, INFINITY)),
        *(("llama", "rope.freq_base", value) for value in (-1.0, 0.0, NAN)),
        ("gemma3", "rope.freq_base_swa", -1.0),
        ("llama", "attention.head_count_kv", 3),
    ],
)
def test_a_gguf_is_looked_at_too(architecture: str, key: str, value: float, specimen: Specimen, tmp_path: Path) -> None:
    specimen.write()
    base = write_gguf(tmp_path / "plain.gguf", architecture)
    specimen.base = with_metadata(base, tmp_path / "odd.gguf", {f"{architecture}.{key}": value})
    report = specimen.report(values=False)
    assert "BM046" in codes(report)
    assert "BM046" not in report.blockers("lora")  # which has nothing of the base


# --- Tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "special", "is_apart"),
    [
        (["<a>", "<b>"], True, True),
        (["<a>", "<a>"], True, False),
        (["<a>", "word7"], True, False),  # a word of the base
        (["<a>", f"[PAD{VOCAB + 2}]"], True, False),  # the row behind the two has no token
        (["<a>", f"[PAD{VOCAB + 9}]"], True, True),
        (["<a>", "a\0b"], True, False),  # read as "a"
        (["a\0b", "a\0c"], True, False),
        (["x y", "x▁y"], False, False),  # one, once spaces are spelt
        (["x y", "x▁y"], True, True),
        (["<a>", ""], True, True),  # llama.cpp names an empty token by its number
        (["", f"[EMPTY_{VOCAB}]"], True, False),
    ],
)
def test_new_tokens_are_told_apart(
    new: list[str], special: bool, is_apart: bool, specimen: Specimen, bases: Path
) -> None:
    with_tokens(specimen, bases)
    write_tokenizer(specimen.directory, dict(enumerate(new, VOCAB)), special=special)
    save_ends(specimen, VOCAB + 3)
    specimen.write()
    assert ("BM027" not in specimen.report(values=False).blockers("model")) == is_apart


def test_a_token_may_move_to_another_id(specimen: Specimen, bases: Path) -> None:
    """Two reserved tokens swap their names: each text still has one id."""
    tokens = ["<s>", "<unused1>", "<unused2>", *TOKENS[3:]]
    base = specimen.directory.with_name("base.gguf")
    types = [CONTROL] * 3 + [NORMAL] * (VOCAB - 3)
    specimen.base = with_metadata(bases / "tied.gguf", base, metadata("llama", tokens, types))
    write_tokenizer(specimen.directory, {1: "<unused2>", 2: "<unused1>"})
    specimen.write()
    assert "BM027" not in codes(specimen.report(values=False))


def test_a_reserved_token_takes_no_text_that_is_there(specimen: Specimen, bases: Path) -> None:
    with_tokens(specimen, bases)
    write_tokenizer(specimen.directory, {2: "word7"})
    specimen.write()
    assert "BM027" in codes(specimen.report(values=False))


def test_rows_of_new_tokens_are_no_rows_too_many(specimen: Specimen, bases: Path) -> None:
    with_tokens(specimen, bases)
    write_tokenizer(specimen.directory, {VOCAB: TOOL})
    save_ends(specimen, VOCAB + 1)
    specimen.write()
    assert "BM028" not in codes(specimen.report(values=False))


def test_the_good_checkpoint_has_no_fault(specimen: Specimen) -> None:
    on_checkpoint(specimen)
    assert codes(specimen.report()) == []
