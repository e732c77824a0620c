"""The adapter changes the head or the embedding, and no base is given.

Why it matters: on a tied base such an adapter corrupts the embedding, is refused by llama.cpp or aborts it; on an
untied one it is ordinary. Without the base neither can be proven, and a gate must not guess.

What to do: name the base with --base: a Hugging Face directory (config.json is enough) or a GGUF.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.model_names import without_cache
from converter.diagnostics import NoBaseCheck, Problem, Rule, Severity
from converter.rules.ends import ENDS


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the head, and the embedding, if the adapter has a tensor of it."""
    named = adapter.config.base_model_name_or_path if adapter.config else None
    which = f" {without_cache(named)!r}, which the adapter names, is not on this machine" if named else ""
    for module in ENDS:
        key = next((tensor.key for tensor in adapter.tensors if tensor.module == module), None)
        if key:
            yield Problem(key, f"changes {module}; without a base it isn't known if it is a tensor of its own.{which}")


RULE = Rule("HD007", "end-without-base", Severity.ERROR, NoBaseCheck(check), gguf=True)
