"""A merged weight is too large for the type it is to be stored as.

Why it matters: it would become infinite, and one infinite weight spreads over every logit. F16 ends at 65,504.

What to do: store the touched tensors as F32 with `adapter-to-gguf ... --outtype f32`. Weights of that size are rare:
check the adapter's scale (lora_alpha, r) first.
"""

from converter.diagnostics import Rule, Severity, WhileWriting

RULE = Rule("NM010", "value-too-large", Severity.ERROR, WhileWriting(__name__))
