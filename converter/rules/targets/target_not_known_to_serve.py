"""Nobody has tried what a server makes of a feature of the adapter.

Why it matters: servers drop what they don't read without a word. What is not known to be served exactly is no yes.

What to do: take a target that is known to serve it (docs/targets.md), or try it, and compare with PEFT by logits. Who
has done so may ignore TG003 in the policy, or waive it for this adapter.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from converter.diagnostics import Problem, Rule, Severity, TargetCheck
from converter.rules.answers import problems

if TYPE_CHECKING:
    from converter.targets.judged import Judged


def check(answers: "tuple[Judged, ...]") -> Iterator[Problem]:
    """Yield each feature of which a target's table says nothing."""
    return problems(answers, "unknown-feature")


RULE = Rule("TG003", "target-not-known-to-serve", Severity.ERROR, TargetCheck(check))
