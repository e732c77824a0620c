"""The base's config has a setting that llama.cpp's graph of its architecture takes for granted, with another value.

Why it matters: an activation, a scale or a pattern of windows is part of the graph, not of the file: the model would
load, and compute something else.

What to do: give a GGUF of the base that is known to work, or serve the model with another program.
"""

from collections.abc import Iterator

from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel
from converter.read.graph_settings import unread_settings


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each setting that the graph doesn't follow."""
    if base.is_convertible_checkpoint:
        for field, found, wanted in unread_settings(base):
            yield Problem(field, f"is {found!r} in config.json, and {wanted} in llama.cpp's graph", WHOLE_BASE)


RULE = Rule("BM045", "setting-not-read", Severity.ERROR, BaseCheck(check))
