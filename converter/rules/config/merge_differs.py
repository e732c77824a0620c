"""PEFT can't merge a module, or merges it into something else than it computes unmerged.

Why it matters: an adapter is trained unmerged. Each module is merged on its own, in float64, and compared with the
unmerged one on random input: the methods that are right come to 1e-13 of the delta, and to 2e-6 where PEFT computes
in float32.

What to do: update PEFT, and report the method to it; or train a LoRA.
"""

from converter.diagnostics import Rule, Severity, WhileWriting

RULE = Rule("CF010", "merge-differs", Severity.ERROR, WhileWriting(__name__))
