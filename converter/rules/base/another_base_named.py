"""The adapter names another base than the one given: of another size or family, or not the instructed one.

Why it matters: an adapter on another base with the same shapes loads without a word and is wrong: llama tied or
untied, gemma and gemma2, qwen2 and qwen3 share shapes, and so do a base and its instructed version. Names are often
the only trace, and they are free text: this is a hint. Where the base's own type contradicts the name see
another-type-named.

What to do: compare base_model_name_or_path in adapter_config.json with the base you give.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.model_names import cached_repository, family, is_instructed, millions, without_cache
from converter.diagnostics import BaseCheck, Problem, Rule, Severity

_FALLBACKS: Final = ("LLaMA v1", "LLaMA v2")  # what llama.cpp's first converter called every model
_MARGIN: Final = 1.5  # names round: one model is called 0.5B and 494M


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the two names if what each of them states is clearly not the same."""
    named = without_cache(adapter.config.base_model_name_or_path or "") if adapter.config else None
    given = cached_repository(base.path) if base.name in (None, *_FALLBACKS) else base.name
    if named and given and _differ(named, given):
        yield Problem("base_model_name_or_path", f"is {named!r}, but the base given calls itself {given!r}")


def _differ(named: str, given: str) -> bool:
    return _sizes_differ(named, given) or _families_differ(named, given) or _only_given_is_instructed(named, given)


def _sizes_differ(named: str, given: str) -> bool:
    ours, theirs = millions(named), millions(given)
    return ours is not None and theirs is not None and max(ours, theirs) > _MARGIN * min(ours, theirs)


def _families_differ(named: str, given: str) -> bool:
    ours, theirs = family(named), family(given)
    if ours is None or theirs is None:
        return False
    return ours[0] != theirs[0] or (bool(ours[1] and theirs[1]) and ours[1] != theirs[1])


def _only_given_is_instructed(named: str, given: str) -> bool:
    """A GGUF's name may leave the word out, so the other way round says nothing; nor does a name of one's own."""
    is_known = family(named) is not None and millions(named) is not None
    return is_known and is_instructed(given) and not is_instructed(named)


RULE = Rule("BM006", "another-base-named", Severity.WARNING, BaseCheck(check))
