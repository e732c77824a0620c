"""The embedding has the factors of a linear module, or another module those of an embedding.

Why it matters: the two are stored transposed to each other. llama.cpp refuses such a file or adds the wrong numbers,
and PEFT can't load it.

What to do: save the adapter again with PEFT's save_pretrained; the keys were renamed by hand. A LoRA on the embedding's
parameter (target_parameters) is one of its own: train with target_modules=["embed_tokens"] instead.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.adapter_tensors import is_parameters
from converter.derive.module_paths import EMBEDDINGS
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each pair whose kind is not its module's."""
    for pair in adapter.pairs:
        if pair.module in EMBEDDINGS and is_parameters(pair.a):
            found = (
                "is a LoRA on the parameter (target_parameters), which is converted on linear modules and experts only"
            )
            yield Problem(pair.a.key, f"{found}: train the embedding with target_modules")
        elif pair.is_embedding != (pair.module in EMBEDDINGS):
            wanted = "lora_A" if pair.is_embedding else "lora_embedding_A"
            yield Problem(pair.a.key, f"{pair.module} has {pair.a.role}, wanted {wanted}")


RULE = Rule("LO010", "factors-of-another-kind", Severity.ERROR, AdapterCheck(check))
