"""What a server makes of adapters depends on the class that it picks for the base, and of this one nothing is known.

Why it matters: vLLM 0.32.0 serves a LoRA on the head of a tied Llama exactly, and refuses the same on a Gemma 2 and a
Qwen 2; of another class nobody knows before it was tried.

What to do: name the base with --base: its Hugging Face directory, of which config.json is enough. For an architecture
that is in no table see docs/targets.md.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from converter.diagnostics import Problem, Rule, Severity, TargetCheck
from converter.rules.answers import problems

if TYPE_CHECKING:
    from converter.targets.judged import Judged


def check(answers: "tuple[Judged, ...]") -> Iterator[Problem]:
    """Yield the base, for each target whose table doesn't have its class."""
    return problems(answers, "unknown-architecture")


RULE = Rule("TG004", "base-unknown-to-target", Severity.ERROR, TargetCheck(check))
