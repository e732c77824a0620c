"""A tensor's bytes are not what its shape and type need.

Why it matters: the header contradicts itself, so the numbers are not the ones that were saved. safetensors refuses
such a file; readers that trust the offsets alone read neighbouring tensors as weights.

What to do: save the adapter again with PEFT's save_pretrained, or download it again.
"""

from collections.abc import Iterator
from math import prod

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.dtypes import SAFETENSORS_ITEMSIZE


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each tensor whose range of bytes has another size than its shape and type say."""
    for info in (entry for header in adapter.headers for entry in header.entries):
        itemsize = SAFETENSORS_ITEMSIZE.get(info.dtype)
        if itemsize is None or info.end < info.begin:
            continue
        found, wanted = info.end - info.begin, itemsize * prod(info.shape)
        if found != wanted:
            yield Problem(info.name, f"has {found} bytes, wanted {wanted} for {info.dtype} {list(info.shape)}")


RULE = Rule("ST005", "size-mismatch", Severity.ERROR, AdapterCheck(check))
