"""The tables of targets: which versions are known, in which form each takes an adapter, and what it makes of features.

A table says what was found, never what is likely: a version, an architecture or a feature that isn't in it is unknown.
"""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from converter.errors import ConverterError

NAMES: Final = (
    "llama.cpp-lora",
    "llama.cpp-model",
    "ollama",
    "vllm",
    "sglang",
    "transformers",
    "peft-merge",
    "mlx",
    "tensorrt-llm",
    "lorax",
)
ANY: Final = "any"  # architecture

Verdict = Literal["exact", "refused", "silent"]
# What a target is given: PEFT's directory, a LoRA GGUF, or a model GGUF.
Form = Literal["peft", "lora", "model"]
Version = tuple[int, ...]


class Fact(NamedTuple):
    """What a target makes of a feature since a version, on some architectures or, where none is named, on all it knows.

    ``does`` is what happens instead, ``ratio`` the effect ratio that was measured, ``do`` what helps, ``source`` a file
    and line, or how it was measured.
    """

    verdict: Verdict
    since: str
    on: Sequence[str] = ()
    does: str = ""
    ratio: float | None = None
    do: str = ""
    source: str = ""


class FormSince(NamedTuple):
    """In which form a target takes adapters since a version; ``does`` says what became of the one before."""

    form: Form
    since: str
    does: str = ""


class Needs(NamedTuple):
    """What a server has to be started with: ``command`` with {rank}, one of ``ranks`` where only those are taken.

    ``otherwise`` says what becomes of other ranks, where they are taken too. ``vocabulary`` is the most that a base of
    one of ``architectures`` may have.
    """

    command: str = ""
    ranks: Sequence[int] = ()
    otherwise: str = ""
    vocabulary: int | None = None
    architectures: Sequence[str] = ()


class Target(NamedTuple):
    """One server. ``measured`` and ``documented`` are its versions, single ones or ranges such as 1.0..1.4."""

    name: str
    title: str
    about: str
    forms: Sequence[FormSince]
    measured: Sequence[str]
    documented: Sequence[str]
    architectures: Sequence[str]
    features: Mapping[str, Sequence[Fact]]
    needs: Needs = Needs()

    @property
    def newest(self) -> str:
        """The version that is meant where none is said: the newest measured one, or documented where none is."""
        return (self.measured or self.documented)[-1].rpartition("..")[2]

    def evidence(self, version: str) -> Literal["measured", "documented"] | None:
        """How a version is known; None where it isn't."""
        if any(_is_in(version, known) for known in self.measured):
            return "measured"
        return "documented" if any(_is_in(version, known) for known in self.documented) else None

    def form(self, version: str) -> FormSince:
        """In which form a version takes adapters."""
        return [form for form in self.forms if _number(form.since) <= _number(version)][-1]

    def fact(self, feature: str, version: str, architecture: str) -> Fact | None:
        """What a version makes of a feature on an architecture: the last fact that fits; None where none does."""
        facts = [
            fact
            for fact in self.features.get(feature, ())
            if _number(fact.since) <= _number(version) and (not fact.on or architecture in fact.on)
        ]
        return facts[-1] if facts else None


class Wanted(NamedTuple):
    """A target that is asked for, in a version that may be unknown."""

    name: str
    version: str

    def __str__(self) -> str:
        """As the option spells it."""
        return f"{self.name}@{self.version}"


def wanted(text: str) -> Wanted:
    """The target of NAME or NAME@VERSION. Raises ConverterError where there is none of this name."""
    name, is_versioned, version = text.partition("@")
    if name not in NAMES:
        raise ConverterError(f"no target {name!r}; there are {', '.join(NAMES)}")
    if is_versioned and not version:
        raise ConverterError(f"{text} names no version")
    return Wanted(name, version or target_named(name).newest)


@cache
def target_named(name: str) -> Target:
    """The table of this name."""
    data = tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8"))
    features = {feature: [_fact(row) for row in rows] for feature, rows in data.pop("features", {}).items()}
    forms = [FormSince(**form) for form in data.pop("forms")]
    return Target(name, forms=forms, features=features, needs=Needs(**data.pop("needs", {})), **data)


def _fact(row: dict[str, Any]) -> Fact:
    return Fact(row.pop("is"), **row)


def _number(version: str) -> Version:
    """A version as numbers; a name, such as that of a commit, is older than all."""
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(part.isascii() and part.isdigit() for part in parts) else ()


def _is_in(version: str, known: str) -> bool:
    first, _, last = known.partition("..")
    number = _number(version)
    return version == known or (bool(last and number) and _number(first) <= number <= _number(last))
