"""The base holds this very adapter already: the GGUF says that it was made from it.

Why it matters: what was trained would be added twice. Nothing else tells: names and shapes are the right ones, the file
loads and answers, and its change is twice as large as in training.

What to do: give the base that the adapter was trained on. Another adapter may be put on a merged model; the GGUF then
names all of them, in their order.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.digests import adapter_digest, merged_adapters


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the adapter that the base's metadata names. Its files are read only where there is such a name."""
    merged = merged_adapters(base)
    if merged and adapter_digest(adapter) in merged:
        yield Problem(base.label, "holds this adapter already, by the digest in its metadata")


RULE = Rule("BM012", "merged-already", Severity.ERROR, BaseCheck(check))
