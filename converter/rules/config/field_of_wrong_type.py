"""A field of adapter_config.json holds a value of the wrong type.

Why it matters: loaders coerce or ignore such a value, each in its own way, and the adapter gets another scale or
other modules than it was trained with.

What to do: mend the field; PEFT's LoraConfig says what it takes.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each field that is not of its type."""
    for field, found, wanted in adapter.config.malformed if adapter.config else ():
        yield Problem(field, f"is {found}, wanted {wanted}")


RULE = Rule("CF003", "field-of-wrong-type", Severity.ERROR, AdapterCheck(check))
