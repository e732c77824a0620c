"""What the user's policy limits."""

from pathlib import Path

from converter.diagnostics import Limits
from tests.rules.bad.registry import bad
from tests.rules.specimens import RANK, Specimen, head_lora, write_gguf


@bad("PO001")
def rank_above_the_limit(it: Specimen, _: Path) -> None:
    it.write()
    it.limits = Limits(rank=RANK - 1)


@bad("PO002")
def larger_than_the_limit(it: Specimen, _: Path) -> None:
    it.write()
    it.limits = Limits(nbytes=it.weights.stat().st_size - 1)


@bad("PO003")
def base_that_is_not_on_the_list(it: Specimen, _: Path) -> None:
    it.write()
    it.limits = Limits(bases=("me/large", "you/*"))


@bad("PO004")
def base_of_another_fingerprint(it: Specimen, _: Path) -> None:
    it.write()
    it.limits = Limits(base_fingerprints=("norms-sha256:" + 64 * "0",))


@bad("PO005")
def forbidden_by_its_name(it: Specimen, _: Path) -> None:
    it.write()
    it.limits = Limits(forbidden_modules=("down_proj",))


@bad("PO005")
def forbidden_by_its_path(it: Specimen, _: Path) -> None:
    it.write()
    it.limits = Limits(forbidden_modules=("model.layers.1.*",))


@bad("PO006")
def untied_by_the_adapters_word(it: Specimen, bases: Path) -> None:
    it.tensors |= head_lora()
    it.base = write_gguf(bases / "untied.gguf", tied=False)
    it.base_is_named = True
    it.write()
    it.limits = Limits()
