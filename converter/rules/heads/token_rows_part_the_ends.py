"""The head has token rows of its own (trainable_token_indices), but the base's head and embedding are one tensor.

Why it matters: written into the shared tensor the head's rows would replace the embedding's too, which training did
not. Without rows of its own the head of a tied base follows the embedding's, and nothing needs to part.

What to do: give the model its own head with `adapter-to-gguf ADAPTER --base BASE --untie -o model.gguf`, or train
again with one list of tokens for both ends.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import HEAD
from converter.diagnostics import TIED, BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the head's own rows where the base is tied."""
    for rows in adapter.token_rows if base.tied else ():
        if rows.module == HEAD:
            message = f"replaces {len(rows.indices)} rows of lm_head, but in {base.label} it is embed_tokens' tensor"
            yield Problem(rows.tensor.key, message, TIED)


RULE = Rule("HD013", "token-rows-part-the-ends", Severity.ERROR, BaseCheck(check), gguf=True)
