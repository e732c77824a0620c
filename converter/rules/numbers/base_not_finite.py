"""A tensor of the base holds NaN, infinity, or a number beyond 65504, the largest of F16.

Why it matters: what the adapter doesn't touch is copied byte for byte, and one such number spreads over every logit:
llama.cpp loads the file without a message. A norm of 70,000 in a tiny Gemma 3 was enough. The adapter is not at fault,
so the run ends with status 2.

What to do: get the base again, or convert it again: a download or a conversion that broke off leaves such numbers.
"""

from converter.diagnostics import Rule, Severity, WhileWriting

RULE = Rule("NM012", "base-not-finite", Severity.ERROR, WhileWriting(__name__))
