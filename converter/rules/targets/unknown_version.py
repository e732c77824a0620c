"""Of the version of a server that was asked for nothing is known.

Why it matters: what a server reads of an adapter changes from one version to the next: vLLM 0.31.0 read no
alpha_pattern and served half of the effect, 0.32.0 serves it exactly. A version between two known ones is not known.

What to do: ask for a version that docs/targets.md has, or for none: that is the newest that was measured.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from converter.diagnostics import Problem, Rule, Severity, TargetCheck
from converter.rules.answers import problems

if TYPE_CHECKING:
    from converter.targets.judged import Judged


def check(answers: "tuple[Judged, ...]") -> Iterator[Problem]:
    """Yield each version that a target's table doesn't have."""
    return problems(answers, "unknown-version")


RULE = Rule("TG005", "unknown-version", Severity.ERROR, TargetCheck(check))
