"""The base that the adapter is judged beside is none of those that the policy names by fingerprint.

Why it matters: names and shapes can't tell a base from its fine-tunes and its revisions. The fingerprint, SHA-256 over
the weights of the norms, can, and is the same for a Hugging Face directory and every GGUF of a model.

What to do: give that base with --base, or add the fingerprint to limits.base-fingerprints in the policy.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import CannotLookError, Limits, PolicyCheck, Problem, Rule, Severity
from converter.fingerprint import fingerprint


def check(_adapter: Adapter, base: BaseModel | None, limits: Limits) -> Iterator[Problem]:
    """Yield the base's fingerprint, if it is another one."""
    if not limits.base_fingerprints:
        return
    if base is None:
        raise CannotLookError("no base given (--base)")
    found = fingerprint(base)
    if found is None:
        raise CannotLookError("the base has no norms to be told by")
    if found not in limits.base_fingerprints:
        yield Problem(base.label, f"has the fingerprint {found}, which the policy doesn't name")


RULE = Rule("PO004", "base-of-other-fingerprint", Severity.ERROR, PolicyCheck(check))
