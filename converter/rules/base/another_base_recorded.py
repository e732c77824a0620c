"""The training run noted down which base it had, and it is not the one given.

Why it matters: an adapter on another base with the same shapes loads without a word and is wrong. base_fingerprint.json
beside the adapter holds a digest of the norms of the base it was trained on, which is the same for a Hugging Face
directory and every GGUF of that model. A fine-tune that froze its norms has its base's digest, so that equal digests
are no proof.

What to do: give the base that the record names. If the base given holds the same model, changed on purpose in its
norms alone, delete base_fingerprint.json.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, CannotLookError, Problem, Rule, Severity
from converter.fingerprint import RECORD_NAME, fingerprint, recorded_base


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield a record whose fingerprint is not the base's."""
    recorded = recorded_base(adapter.path)
    if recorded is None or base.architecture is None:
        return
    found = fingerprint(base)
    if found is None:
        raise CannotLookError(f"{base.label} has no norms to compare {RECORD_NAME} with")
    if found != recorded.fingerprint:
        yield Problem(RECORD_NAME, f"is of {recorded.of or 'another base'!r}; {base.label} has other norms")


RULE = Rule("BM007", "another-base-recorded", Severity.ERROR, BaseCheck(check))
