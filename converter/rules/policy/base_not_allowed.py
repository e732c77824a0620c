"""The adapter names a base that the policy doesn't allow.

Why it matters: the policy lists the bases that are served. An adapter of another one has no server, or is put on a
model that it wasn't trained on.

What to do: train on one of them, or add the base to limits.bases in the policy. Where the name is a path of another
machine, give base_model_name_or_path the model's name.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.model_names import without_cache
from converter.diagnostics import Limits, PolicyCheck, Problem, Rule, Severity


def check(adapter: Adapter, _base: BaseModel | None, limits: Limits) -> Iterator[Problem]:
    """Yield the name, if no pattern has it."""
    stated = adapter.config.base_model_name_or_path if adapter.config else None
    name = without_cache(stated or "")
    if limits.bases and not any(fnmatchcase(name, pattern) for pattern in limits.bases):
        wanted = ", ".join(limits.bases)
        yield Problem("base_model_name_or_path", f"is {name!r}, the policy allows {wanted}")


RULE = Rule("PO003", "base-not-allowed", Severity.ERROR, PolicyCheck(check))
