"""adapter_config.json names code for a loader to import.

Why it matters: PEFT imports auto_mapping.parent_library and megatron_core by name, so who writes the config chooses
what is run. Nothing is imported here, so the conversion itself is safe.

What to do: make sure that you know the package named before you load the adapter with PEFT.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity

# Who writes auto_mapping by itself: PEFT (the class of the model, from transformers) and Unsloth.
_HARMLESS: Final = frozenset({"peft", "transformers", "unsloth", "unsloth_zoo"})
_MEGATRON: Final = "megatron.core"  # PEFT's default, written into every config


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each field that names a package other than the usual ones."""
    raw = adapter.config.raw if adapter.config else {}
    mapping = raw.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    if library and str(library).partition(".")[0] not in _HARMLESS:
        yield Problem("auto_mapping", f"has the parent_library {str(library)[:80]!r}")
    if raw.get("megatron_core") not in (None, _MEGATRON):
        yield Problem("megatron_core", f"is {str(raw['megatron_core'])[:80]!r}, PEFT's own is {_MEGATRON!r}")


RULE = Rule("SC003", "names-code", Severity.WARNING, AdapterCheck(check))
