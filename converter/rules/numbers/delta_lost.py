"""Rounding to the type of the touched tensors loses half of a tensor's delta, or more.

Why it matters: what is served is then another adapter, a weaker one. The share that survives is measured while the
model is written: on real SmolLM2 the median is 1.00 in Q8_0, 0.96 in BF16, 0.92 in Q4_0.

What to do: take a type of more bits (`--outtype f16` or `f32`; of `--quantize` the one that `--compare-types` shows to
keep it), or keep the adapter apart from the base with --to lora, where that is not forbidden. The message names the
options that are open.
"""

from converter.diagnostics import Rule, Severity, WhileWriting

RULE = Rule("NM011", "delta-lost", Severity.ERROR, WhileWriting(__name__))
