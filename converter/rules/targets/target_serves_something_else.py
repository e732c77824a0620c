"""A server that the adapter goes to loads it and serves something else, without a word.

Why it matters: nothing fails. Measured: vLLM 0.31.0 left half of an adapter's effect undone by reading no
alpha_pattern, SGLang 0.5.23 four fifths by reading no use_rslora, and a PiSSA adapter served as it was trained is
further from the trained model than the base is.

What to do: do what the finding says, or train without the feature, or give the server a version that has it.
docs/targets.md has what each server takes.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from converter.diagnostics import Problem, Rule, Severity, TargetCheck
from converter.rules.answers import problems

if TYPE_CHECKING:
    from converter.targets.judged import Judged


def check(answers: "tuple[Judged, ...]") -> Iterator[Problem]:
    """Yield each feature that a target drops or changes in silence."""
    return problems(answers, "silent")


RULE = Rule("TG002", "target-serves-something-else", Severity.ERROR, TargetCheck(check))
