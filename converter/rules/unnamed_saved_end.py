"""Head or embedding is in the file, though modules_to_save doesn't name it.

Why it matters: PEFT saves it so when the vocabulary was resized (save_embedding_layers), with rows for new tokens
that the base's tokenizer doesn't have. This version converts neither the rows nor the tokenizer.

What to do: save with save_embedding_layers=False if the vocabulary was not changed and the embedding not trained.
Otherwise merge with PEFT (merge_and_unload), save with the tokenizer, and convert the merged model.
"""

from collections.abc import Iterator

from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.rules.ends import ENDS, unnamed_weight


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the weight of each end that is saved without being named."""
    for module in ENDS:
        for tensor in unnamed_weight(adapter, module):
            yield Problem(tensor.key, f"replaces {module}, which modules_to_save doesn't name: was it resized?")


RULE = Rule("HD011", "unnamed-saved-end", Severity.ERROR, AdapterCheck(check))
