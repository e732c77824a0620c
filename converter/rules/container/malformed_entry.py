"""A header's entry is not what safetensors prescribes: an unknown type, fields missing, offsets that are no sizes.

Why it matters: the tensor can't be read, and a tool that passes over it serves a part of the adapter.

What to do: save the adapter again with PEFT's save_pretrained, in float32, float16 or bfloat16.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.dtypes import SAFETENSORS_ITEMSIZE


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each entry that is malformed or of an unknown type, and metadata that is not text."""
    for header in adapter.headers:
        for key in header.malformed:
            yield Problem(key, "wanted once, with exactly dtype, shape (at most 8 sizes) and data_offsets (two sizes)")
        for info in header.entries:
            if info.dtype not in SAFETENSORS_ITEMSIZE:
                yield Problem(info.name, f"has the unknown type {info.dtype!r}")
        if header.metadata is not None and not _is_text(header.metadata):
            yield Problem(header.path.name, "has __metadata__ that is not an object of strings")


def _is_text(metadata: object) -> bool:
    return isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())


RULE = Rule("ST006", "malformed-entry", Severity.ERROR, AdapterCheck(check))
