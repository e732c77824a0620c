"""A server that the adapter goes to refuses it, when it is loaded or at the first request.

Why it matters: the release stops there instead of here, when the server is up or at the first request. The refusals of
vLLM 0.32.0 are measured in its CPU engine, those of SGLang 0.5.23 in its own loader.

What to do: do what the finding says, or train without the feature. A merged model has nothing left to refuse:
`adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf` makes one for llama.cpp. docs/targets.md has what each
server takes.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from converter.diagnostics import Problem, Rule, Severity, TargetCheck
from converter.rules.answers import problems

if TYPE_CHECKING:
    from converter.targets.judged import Judged


def check(answers: "tuple[Judged, ...]") -> Iterator[Problem]:
    """Yield each feature that a target refuses."""
    return problems(answers, "refused")


RULE = Rule("TG001", "target-refuses", Severity.ERROR, TargetCheck(check))
