"""The weight file holds no tensors.

Why it matters: convert_lora_to_gguf.py says nothing about it and writes an adapter that does nothing. It is what
save_pretrained leaves under DeepSpeed ZeRO-3 or FSDP when the parameters were not gathered.

What to do: save again with the parameters gathered (deepspeed.zero.GatheredParameters, or
FullyShardedDataParallel.summon_full_params, around save_pretrained).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the file, if every header was read and none has an entry."""
    if adapter.headers and not any(header.entries or header.malformed for header in adapter.headers):
        yield Problem(adapter.headers[0].path.name, "holds no tensors")


RULE = Rule("ST009", "no-tensors", Severity.ERROR, AdapterCheck(check))
