"""A whole parameter other than head and embedding was trained and saved: a bias, a norm, a layer of modules_to_save.

Why it matters: this version doesn't convert it. convert_lora_to_gguf.py refuses biases, and writes saved norms into a
file whose loader then ignores them in silence.

What to do: merge with PEFT (merge_and_unload) and convert the merged model, or train with bias="none" and without
these modules in modules_to_save.
"""

from collections.abc import Iterator

from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.rules.ends import ENDS


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each saved parameter that is not the weight of head or embedding."""
    for tensor in adapter.saved_modules:
        if tensor.role == "bias" or tensor.module not in ENDS:
            yield Problem(tensor.key, f"replaces the {tensor.role} of {tensor.module}, which is not converted")


RULE = Rule("LO007", "unconverted-saved-tensor", Severity.ERROR, AdapterCheck(check))
