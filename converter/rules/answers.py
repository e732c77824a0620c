"""The answers of targets as problems: each of its rules has one kind of them."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from converter.diagnostics import Kind, Problem

if TYPE_CHECKING:
    from converter.targets.judged import Answer, Judged

_NO_GGUF: Final = frozenset[Kind]()  # what a server makes of PEFT's directory says nothing of a GGUF


def problems(answers: "Iterable[Judged]", answer: "Answer") -> Iterator[Problem]:
    """Yield what targets answered in this way."""
    for judged in answers:
        for fault in judged.faults:
            if fault.answer == answer:
                yield Problem(fault.where, f"{judged.wanted}: {fault.message}", _NO_GGUF, str(judged.wanted))
