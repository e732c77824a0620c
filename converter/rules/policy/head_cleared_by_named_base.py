"""Only the base that the adapter itself names shows that the head is a tensor of its own.

Why it matters: on a tied base the same adapter corrupts the embedding. Who writes adapter_config.json chooses which
base it names, a directory of the adapter's own among them; so an adapter that goes to a tied base could bring an untied
one for its judge.

What to do: name the base that it will be served on with --base. Where the names in your adapters can be trusted, say
limits.trust-named-base = true in the policy.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import Limits, PolicyCheck, Problem, Rule, Severity
from converter.rules.ends import ENDS


def check(adapter: Adapter, base: BaseModel | None, limits: Limits) -> Iterator[Problem]:
    """Yield the head, and the embedding, if the adapter changes it."""
    if base is None or base.tied or not base.named_by_adapter or limits.trust_named_base:
        return
    for module in ENDS:
        key = next((tensor.key for tensor in adapter.tensors if tensor.module == module), None)
        if key:
            yield Problem(key, f"changes {module}; that {base.label} is untied is known by the adapter's word alone")


RULE = Rule("PO006", "head-cleared-by-named-base", Severity.ERROR, PolicyCheck(check))
