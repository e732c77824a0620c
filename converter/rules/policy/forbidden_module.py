"""The adapter changes a module that the policy forbids.

Why it matters: a team that serves LoRAs on a tied base can't serve one on its head; another wants routers or
embeddings left alone.

What to do: train again without it (target_modules, modules_to_save), or take it out of limits.forbidden-modules.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import Limits, PolicyCheck, Problem, Rule, Severity


def check(adapter: Adapter, _base: BaseModel | None, limits: Limits) -> Iterator[Problem]:
    """Yield each module whose path, or the end of it behind a dot, matches a pattern."""
    for module in adapter.modules if limits.forbidden_modules else ():
        names = (module, module.rpartition(".")[2])
        pattern = next((p for p in limits.forbidden_modules if any(fnmatchcase(name, p) for name in names)), None)
        if pattern is not None:
            yield Problem(module, f"is changed, and the policy forbids {pattern}")


RULE = Rule("PO005", "forbidden-module", Severity.ERROR, PolicyCheck(check))
