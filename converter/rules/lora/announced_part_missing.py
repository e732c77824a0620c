"""The config announces a part that the file doesn't have: DoRA magnitudes, LoRA biases, token rows.

Why it matters: PEFT only warns, and fills the part with what an untrained adapter has. What was trained is not in the
file, or the config belongs to another one.

What to do: save the adapter again from the training run, or put the config beside the weights it was saved with.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each pair without an announced part, and token indices without rows."""
    config = adapter.config
    if config is None:
        return
    for pair in adapter.pairs:
        if config.use_dora and not pair.magnitude:
            yield Problem(pair.module, "has no lora_magnitude_vector, but use_dora is set")
        if config.lora_bias and not pair.b_bias and not pair.is_embedding:
            yield Problem(pair.module, "has no lora_B.bias, but lora_bias is set")
    if config.trainable_token_indices and not adapter.token_rows:
        yield Problem("trainable_token_indices", "names tokens, but the file has no rows for them")


RULE = Rule("LO015", "announced-part-missing", Severity.ERROR, AdapterCheck(check))
