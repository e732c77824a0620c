"""Which rows a served model has, and which tokens: adapters of more, fewer and other rows than the base's."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.derive.vocabulary import CONTROL, TokenChange, Vocabulary, vocabulary_of
from converter.diagnostics import Deployment, Kind
from fixtures.tokenizers import NORMAL, UNUSED, USER_DEFINED, metadata, with_metadata
from tests.rules.bad.tokens import TOKENS, TOOL, save_ends, with_tokens, write_tokenizer
from tests.rules.specimens import HEAD, HIDDEN, VOCAB, Specimen, lora, tensor, write_huggingface


def vocabulary(specimen: Specimen) -> Vocabulary:
    specimen.write()
    assert specimen.base
    found = vocabulary_of(read_adapter(specimen.directory), read_base_model(specimen.base))
    assert found
    return found


@pytest.mark.parametrize("n_trained", [VOCAB, VOCAB + 16])
def test_rows_beyond_a_shared_vocabulary_are_padding(n_trained: int, specimen: Specimen, bases: Path) -> None:
    with_tokens(specimen, bases)
    specimen.tensors |= lora(HEAD, n_trained, HIDDEN)
    found = vocabulary(specimen)
    assert (found.n_rows, found.n_trained, found.unclear, found.changes) == (VOCAB, n_trained, None, ())


def test_rows_behind_a_new_token_are_the_models(specimen: Specimen, bases: Path) -> None:
    with_tokens(specimen, bases)
    write_tokenizer(specimen.directory, {VOCAB: TOOL})
    save_ends(specimen, VOCAB + 16)
    found = vocabulary(specimen)
    assert found.n_rows == VOCAB + 16
    assert found.changes == (TokenChange(VOCAB, TOOL, CONTROL, None),)


def test_without_a_tokenizer_more_rows_are_unclear(specimen: Specimen) -> None:
    save_ends(specimen, VOCAB + 1)
    found = vocabulary(specimen)
    assert found.n_rows == VOCAB
    assert f"has {VOCAB + 1} rows, the base {VOCAB}" in str(found.unclear)


@dataclass(frozen=True, slots=True)
class Fewer:
    """An adapter of fewer rows than the base, whose last ``n_unused`` tokens are unused."""

    n_unused: int
    n_trained: int
    is_clear: bool


@pytest.mark.parametrize("case", [Fewer(8, VOCAB - 8, True), Fewer(8, VOCAB - 9, False), Fewer(8, VOCAB - 3, True)])
def test_fewer_rows_need_unused_tokens_behind_them(case: Fewer, specimen: Specimen, bases: Path) -> None:
    types = [NORMAL] * (VOCAB - case.n_unused) + [UNUSED] * case.n_unused
    base = specimen.directory.with_name("base.gguf")
    specimen.base = with_metadata(bases / "tied.gguf", base, metadata("llama", list(TOKENS), types))
    save_ends(specimen, case.n_trained)
    found = vocabulary(specimen)
    assert (found.unclear is None) == case.is_clear
    assert found.n_rows == (case.n_trained if case.is_clear else VOCAB)


def test_fewer_rows_than_tokens_are_unclear(specimen: Specimen, bases: Path) -> None:
    with_tokens(specimen, bases)
    save_ends(specimen, VOCAB - 1)
    assert vocabulary(specimen).unclear == f"has {VOCAB} tokens, but the adapter has {VOCAB - 1} rows"


@pytest.mark.parametrize("reserved", ["<unused7>", "<|reserved_special_token_3|>", "[PAD151700]", "<SPECIAL_20>"])
def test_a_token_in_reserve_may_take_a_name(reserved: str, specimen: Specimen, bases: Path) -> None:
    tokens = [*TOKENS[:2], reserved, *TOKENS[3:]]
    base = specimen.directory.with_name("base.gguf")
    specimen.base = with_metadata(bases / "tied.gguf", base, metadata("llama", tokens, [NORMAL] * VOCAB))
    write_tokenizer(specimen.directory, {2: TOOL})
    found = vocabulary(specimen)
    assert found.new_tokens == (TokenChange(2, TOOL, CONTROL, reserved),)
    assert found.differing == ()


def test_a_token_in_use_may_not(specimen: Specimen, bases: Path) -> None:
    with_tokens(specimen, bases)
    write_tokenizer(specimen.directory, {7: TOOL})
    found = vocabulary(specimen)
    assert (found.new_tokens, found.differing) == ((), (7,))


def test_an_added_token_is_of_its_kind_in_the_base_too(specimen: Specimen, bases: Path) -> None:
    """llama.cpp splits tokens of these kinds off before all others, as transformers does with added ones."""
    with_tokens(specimen, bases)
    write_tokenizer(specimen.directory, {9: "word9"})
    assert vocabulary(specimen).changes == (TokenChange(9, "word9", CONTROL, "word9"),)


def test_spaces_are_spelt_both_ways(specimen: Specimen, bases: Path) -> None:
    tokens = [*TOKENS[:7], "  ", *TOKENS[8:]]
    types = [NORMAL] * 7 + [USER_DEFINED] + [NORMAL] * (VOCAB - 8)
    base = specimen.directory.with_name("base.gguf")
    specimen.base = with_metadata(bases / "tied.gguf", base, metadata("llama", tokens, types))
    write_tokenizer(specimen.directory, texts={7: "▁▁"})
    assert vocabulary(specimen).differing == ()


def test_a_huggingface_base_is_compared_by_its_tokenizer(specimen: Specimen) -> None:
    specimen.base = write_huggingface(specimen.directory.with_name("base"))
    write_tokenizer(specimen.base)
    write_tokenizer(specimen.directory, {2: TOOL, VOCAB: "<another>"})
    save_ends(specimen, VOCAB + 1)
    assert [change.id for change in vocabulary(specimen).new_tokens] == [2, VOCAB]


def test_a_file_that_changed_is_read_again(specimen: Specimen, bases: Path) -> None:
    with_tokens(specimen, bases)
    assert vocabulary(specimen).changes == ()
    write_tokenizer(specimen.directory, {2: TOOL})
    assert len(vocabulary(specimen).changes) == 1


BLOCKED: dict[Kind, Deployment] = {
    "model": Deployment("model"),
    "untie-model": Deployment("model", untie=True),
}


@pytest.mark.parametrize(
    ("tensors", "blocked"),
    [
        (("embed",), {"untie-model"}),
        (("embed", "head"), set()),
        (("head",), {"model", "untie-model"}),
    ],
)
def test_each_end_that_is_written_needs_its_rows(
    tensors: tuple[str, ...], blocked: set[Kind], specimen: Specimen, bases: Path
) -> None:
    with_tokens(specimen, bases)
    write_tokenizer(specimen.directory, {VOCAB: TOOL})
    specimen.config["modules_to_save"] = ["embed_tokens", "lm_head"]
    names = {"embed": "base_model.model.model.embed_tokens.weight", "head": f"{HEAD}.weight"}
    specimen.tensors |= {names[name]: tensor(VOCAB + 1, HIDDEN) for name in tensors}
    specimen.write()
    report = specimen.report()
    assert {kind for kind in BLOCKED if "BM022" in report.blockers(kind)} == blocked
