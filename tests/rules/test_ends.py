"""Which deployments stay open for each way of changing head and embedding, by kind of base."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from converter.checking import check_adapter
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import EVERY, MODEL, Deployment, Kind
from converter.planning.conversion import plan_conversion
from fixtures.generated import Tensor
from tests.rules.specimens import (
    EMBEDDING,
    HEAD,
    HIDDEN,
    VOCAB,
    Specimen,
    base_embedding,
    embedding_lora,
    head_lora,
    open_for,
    tensor,
    write_gguf,
    write_huggingface,
)

TARGETS: tuple[Literal["lora", "model"], ...] = ("lora", "model")
UNTIED: set[Kind] = {"untie-lora", "untie-model"}
HEAD_BASE, EMBEDDING_BASE = f"{HEAD}.base_layer.weight", f"{EMBEDDING}.base_layer.weight"
SAVED_HEAD = {f"{HEAD}.weight": tensor(VOCAB, HIDDEN)}
SAVED_EMBEDDING = {f"{EMBEDDING}.weight": tensor(VOCAB, HIDDEN)}

# What the adapter has beside linear modules, what its config says, what is open on a tied and on an untied base.
CASES: dict[str, tuple[dict[str, Tensor], dict[str, object], set[Kind], set[Kind]]] = {
    "plain": ({}, {}, set(EVERY), set(EVERY)),
    "head": (head_lora(), {}, UNTIED, set(EVERY)),
    "embedding": (embedding_lora(), {}, UNTIED, set(EVERY)),
    "both": (head_lora() | embedding_lora(), {}, UNTIED, set(EVERY)),
    "tied pair": (
        head_lora() | embedding_lora(),
        {"ensure_weight_tying": True},
        set(EVERY) - {"lora"},
        set(),  # trained on a tied base: this is another
    ),
    "pair of unequal scales": (
        head_lora() | embedding_lora(),
        {"ensure_weight_tying": True, "alpha_pattern": {"lm_head": 64}},
        UNTIED,
        set(EVERY),
    ),
    "half a tied pair": (head_lora(), {"ensure_weight_tying": True}, UNTIED, set(EVERY)),
    "saved head": (SAVED_HEAD, {"modules_to_save": ["lm_head"]}, {"untie-model"}, set(MODEL)),
    "saved embedding": (SAVED_EMBEDDING, {"modules_to_save": ["embed_tokens"]}, {"untie-model"}, set(MODEL)),
    # As PEFT 0.21 writes it: naming one end saves both.
    "saved pair": (
        SAVED_HEAD | SAVED_EMBEDDING,
        {"modules_to_save": ["model.embed_tokens"], "ensure_weight_tying": True},
        set(MODEL),
        set(MODEL),
    ),
    "saved head, embedding as LoRA": (
        SAVED_HEAD | embedding_lora(),
        {"modules_to_save": ["lm_head"]},
        {"untie-model"},
        set(MODEL),
    ),
    "head as LoRA and saved": (head_lora() | SAVED_HEAD, {"modules_to_save": ["lm_head"]}, set(), set()),
}


@pytest.mark.parametrize("name", CASES)
def test_open_on_a_tied_base(name: str, specimen: Specimen) -> None:
    tensors, config, expected, _ = CASES[name]
    specimen.tensors |= tensors
    specimen.config |= config
    specimen.write()
    assert open_for(specimen.report()) == expected


@pytest.mark.parametrize("name", CASES)
def test_open_on_an_untied_base(name: str, untied: Specimen) -> None:
    tensors, config, _, expected = CASES[name]
    untied.tensors |= tensors
    untied.config |= config
    untied.write()
    assert open_for(untied.report()) == expected


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("base", ["tied.gguf", "untied.gguf"])
def test_what_is_open_can_be_planned(name: str, base: str, specimen: Specimen, bases: Path) -> None:
    """Passed by the rules, no key and no field of the adapter is left over in the ledger."""
    specimen.tensors |= CASES[name][0]
    specimen.config |= CASES[name][1]
    specimen.write()
    adapter, model = read_adapter(specimen.directory), read_base_model(bases / base)
    for deployment in (Deployment(to, untie) for to in TARGETS for untie in (False, True)):
        if check_adapter(adapter, model, deployment, values=True).passed:
            assert plan_conversion(adapter, model, deployment).files


@pytest.mark.parametrize(
    ("name", "expected"),
    [("plain", set(EVERY)), ("head", UNTIED), ("embedding", UNTIED), ("tied pair", set(EVERY) - {"lora"})],
)
def test_open_on_gemma(name: str, expected: set[Kind], specimen: Specimen, bases: Path) -> None:
    specimen.base = bases / "gemma.gguf"
    specimen.tensors |= CASES[name][0]
    specimen.config |= CASES[name][1]
    specimen.write()
    assert open_for(specimen.report()) == expected


def test_an_untied_gemma_needs_a_host(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_gguf(tmp_path / "base.gguf", "gemma", tied=False)
    specimen.write()
    assert open_for(specimen.report()) == UNTIED


def test_a_huggingface_base_serves_lora_files_only(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_huggingface(tmp_path / "base")
    specimen.write()
    assert open_for(specimen.report()) == {"lora"}


# --- base layers ------------------------------------------------------------------------------------------------------


def test_the_bases_own_layer_is_redundant(specimen: Specimen) -> None:
    specimen.tensors |= head_lora() | {HEAD_BASE: base_embedding()}
    specimen.write()
    assert open_for(specimen.report()) == UNTIED


def test_a_foreign_layer_forbids_lora_files(specimen: Specimen) -> None:
    specimen.tensors |= head_lora() | {HEAD_BASE: tensor(VOCAB, HIDDEN, seed=1)}
    specimen.write()
    assert open_for(specimen.report()) == {"untie-model"}


def test_without_values_a_layer_is_not_compared(specimen: Specimen) -> None:
    specimen.tensors |= head_lora() | {HEAD_BASE: tensor(VOCAB, HIDDEN, seed=1)}
    specimen.write()
    report = specimen.report(values=False)
    assert open_for(report) == UNTIED
    assert "HD008" in {skip.code for skip in report.skipped}


@pytest.mark.parametrize("outtype", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_what_a_types_rounding_explains_is_no_foreign_layer(outtype: str, specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_gguf(tmp_path / "base.gguf", outtype=outtype)
    specimen.tensors |= embedding_lora() | {EMBEDDING_BASE: base_embedding()}
    specimen.write()
    assert open_for(specimen.report()) == UNTIED


@pytest.mark.parametrize("outtype", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_what_it_does_not_explain_is(outtype: str, specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_gguf(tmp_path / "base.gguf", outtype=outtype)
    specimen.tensors |= embedding_lora() | {EMBEDDING_BASE: tensor(VOCAB, HIDDEN, seed=1)}
    specimen.write()
    assert open_for(specimen.report()) == {"untie-model"}


def test_a_base_without_weights_can_not_be_compared(specimen: Specimen, tmp_path: Path) -> None:
    specimen.base = write_huggingface(tmp_path / "base", tie_word_embeddings=False)
    specimen.tensors |= head_lora() | {HEAD_BASE: tensor(VOCAB, HIDDEN, seed=1)}
    specimen.write()
    report = specimen.report()
    assert [(skip.code, skip.reason) for skip in report.skipped] == [
        ("HD008", "base has no weights to compare a base layer with")
    ]


# --- a tied pair's numbers --------------------------------------------------------------------------------------------


def test_a_pair_that_differs_is_closed_altogether(specimen: Specimen) -> None:
    embedding = embedding_lora()
    embedding[f"{EMBEDDING}.lora_embedding_B"] = tensor(HIDDEN, 4, seed=1)
    specimen.tensors |= head_lora() | embedding
    specimen.config["ensure_weight_tying"] = True
    specimen.write()
    assert open_for(specimen.report()) == set()
    assert open_for(specimen.report(values=False)) == set(EVERY) - {"lora"}


# --- without a base ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("add", [head_lora, embedding_lora, lambda: SAVED_HEAD, lambda: {HEAD_BASE: base_embedding()}])
def test_an_end_needs_its_base(add: Callable[[], dict[str, Tensor]], specimen: Specimen) -> None:
    specimen.base = None
    specimen.tensors |= add()
    specimen.write()
    assert "HD007" in specimen.report().blockers("lora")


def test_linear_modules_pass_without_a_base_and_say_so(specimen: Specimen) -> None:
    specimen.base = None
    specimen.write()
    report = specimen.report(Deployment("model"))
    assert report.passed
    assert {"HD001", "BM001", "BM040"} <= {skip.code for skip in report.skipped}
    assert {skip.reason for skip in report.skipped} == {"no base given (--base)"}


def test_the_base_that_is_missing_is_named(specimen: Specimen) -> None:
    specimen.base = None
    specimen.tensors |= head_lora()
    specimen.config["base_model_name_or_path"] = "google/gemma-2b"
    specimen.write()
    (finding,) = specimen.report().findings
    assert finding.code == "HD007"
    assert finding.message.endswith("'google/gemma-2b', which the adapter names, is not on this machine")
