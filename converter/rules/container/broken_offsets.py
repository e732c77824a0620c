"""Tensors overlap, leave holes, end before they begin, or bytes trail after the last one.

Why it matters: safetensors demands that tensors fill the data without gap and overlap. A file that doesn't was
damaged or written by hand; overlapping tensors are read as numbers that nobody trained, and holes can carry what no
tool shows.

What to do: save the adapter again with PEFT's save_pretrained, or download it again.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.read.safetensors_header import SafetensorsHeader


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each place where a file's tensors don't follow one another."""
    for header in adapter.headers:
        yield from _broken(header)


def _broken(header: SafetensorsHeader) -> Iterator[Problem]:
    at = 0
    for info in sorted(header.entries, key=lambda entry: (entry.begin, entry.end)):
        if info.end < info.begin:
            yield Problem(info.name, f"ends at {info.end}, before it begins at {info.begin}")
            continue
        if info.begin != at:
            what = "overlaps the tensor before it" if info.begin < at else "leaves a hole before it"
            yield Problem(info.name, f"{what}: begins at {info.begin}, wanted {at}")
        at = max(at, info.end)
    n_trailing = header.nbytes - header.data_offset - at
    if n_trailing > 0:
        yield Problem(header.path.name, f"has {n_trailing} bytes after the last tensor")


RULE = Rule("ST004", "broken-offsets", Severity.ERROR, AdapterCheck(check))
