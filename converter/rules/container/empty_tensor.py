"""A tensor has no elements.

Why it matters: safetensors accepts it, and the delta of its module is lost. It is what save_pretrained leaves under
DeepSpeed ZeRO-3 or FSDP when the parameters were not gathered.

What to do: save again with the parameters gathered (deepspeed.zero.GatheredParameters, or
FullyShardedDataParallel.summon_full_params, around save_pretrained).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each tensor with a dimension of size 0."""
    for tensor in adapter.tensors:
        if 0 in tensor.tensor.shape:
            yield Problem(tensor.key, f"has the shape {list(tensor.tensor.shape)}: no elements")


RULE = Rule("ST010", "empty-tensor", Severity.ERROR, AdapterCheck(check))
