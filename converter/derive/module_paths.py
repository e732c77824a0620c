"""Module paths as the text model spells them, whatever wrapped the model when it was saved."""

import re
from typing import Final

EMBEDDING: Final = "model.embed_tokens"
HEAD: Final = "lm_head"
# The modules that are looked up, not multiplied by: theirs are lora_embedding_A and lora_embedding_B.
EMBEDDINGS: Final = frozenset({EMBEDDING, "model.embed_tokens_per_layer", "transformer.wpe"})

# Wrappers of multimodal models around the text model, as transformers 4 and 5 spell them.
_WRAPPERS: Final = (
    ("model.language_model.model.", "model."),
    ("model.language_model.lm_head", "lm_head"),
    ("model.language_model.", "model."),
    ("language_model.", ""),
)
# GPT-2's checkpoints on the hub are of the bare model, and its embedding is the only one with a name of its own.
_BARE_GPT2: Final = re.compile(r"(?:wte|wpe|h|ln_f)(?=\.|$)")
_LAYERS: Final = "model.layers."  # nearly every path, and as it should be
_GPT2_EMBEDDING: Final = re.compile(r"transformer\.wte(?=\.|$)")


def normal_module(path: str) -> str:
    """A module path as the text model spells it: ``language_model.model.layers.0`` is ``model.layers.0``.

    It may carry a parameter's name behind it.
    """
    if path.startswith(_LAYERS):
        return path
    for wrapped, bare in _WRAPPERS:
        if path.startswith(wrapped):
            return bare + path.removeprefix(wrapped)
    whole = f"transformer.{path}" if _BARE_GPT2.match(path) else path
    embedding = _GPT2_EMBEDDING.match(whole)
    return EMBEDDING + whole[embedding.end() :] if embedding else whole
