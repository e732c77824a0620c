"""Module paths as the text model spells them, whatever wrapped the model when it was saved."""

from typing import Final

EMBEDDING: Final = "model.embed_tokens"
HEAD: Final = "lm_head"

# Wrappers of multimodal models around the text model, as transformers 4 and 5 spell them.
_WRAPPERS: Final = (
    ("model.language_model.model.", "model."),
    ("model.language_model.lm_head", "lm_head"),
    ("model.language_model.", "model."),
    ("language_model.", ""),
)


def normal_module(path: str) -> str:
    """A module path as the text model spells it: ``language_model.model.layers.0`` is ``model.layers.0``."""
    for wrapped, bare in _WRAPPERS:
        if path.startswith(wrapped):
            return bare + path.removeprefix(wrapped)
    return path
