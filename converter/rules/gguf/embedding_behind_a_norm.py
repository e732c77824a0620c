"""A LoRA is on an embedding that norms what it looks up (Muse Glimmer).

Why it matters: PEFT adds the delta behind the norm while it trains, and before it when it merges, as every file would
have it. They are different models: of a tiny one's effect all was lost, by PEFT's own merge too.

What to do: train without the embedding, or train it as a whole (modules_to_save).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the embedding, where it has a pair, or rows that PEFT trains."""
    if base.architecture is None or not base.architecture.graph.norms_embedding:
        return
    rows = {tensor.module for tensor in adapter.tensors if tensor.role == "trainable_tokens_delta"}
    if EMBEDDING in rows | {pair.module for pair in adapter.pairs}:
        yield Problem(EMBEDDING, "has a delta that PEFT adds behind its norm, wanted none")


RULE = Rule("GG009", "embedding-behind-a-norm", Severity.ERROR, BaseCheck(check))
