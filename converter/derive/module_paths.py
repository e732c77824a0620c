"""Module paths as the text model spells them, whatever wrapped the model when it was saved."""

import re
from typing import Final

from converter.derive.remembered import remembered

EMBEDDING: Final = "model.embed_tokens"
HEAD: Final = "lm_head"
# The modules that are looked up, not multiplied by: theirs are lora_embedding_A and lora_embedding_B.
EMBEDDINGS: Final = frozenset({EMBEDDING, "model.embed_tokens_per_layer", "transformer.wpe"})

# Wrappers of multimodal models around the text model, as transformers 4 and 5 spell them.
_WRAPPERS: Final = (
    ("model.text_model.", "model."),
    ("model.language_model.model.", "model."),
    ("model.language_model.lm_head", "lm_head"),
    ("model.language_model.", "model."),
    ("language_model.", ""),
)
# A model without its head (AutoModel) has its layers at the top: so are checkpoints and adapters of embedding models.
_BARE: Final = re.compile(r"(?:layers\.\d+|embed_tokens|norm)(?=\.|$)")
# Mamba's authors call a model so, and Nemotron-H's checkpoints are as they have it.
_BACKBONE: Final = re.compile(r"backbone\.(?=(?:layers\.\d+|norm_f)(?:\.|$))")
# GPT-2's and BLOOM's checkpoints on the hub are of the bare model.
_BARE_GPT2: Final = re.compile(r"(?:wte|wpe|h|ln_f|word_embeddings|word_embeddings_layernorm)(?=\.|$)")
_LAYERS: Final = "model.layers."  # nearly every path, and as it should be
# Ends of a model that have names of their own.
_ENDS: Final = (
    (
        re.compile(
            r"(?:transformer\.(?:wte|word_embeddings)|(?:backbone|model)\.embeddings|gpt_neox\.embed_in)(?=\.|$)"
        ),
        EMBEDDING,
    ),
    (re.compile(r"embed_out(?=\.|$)"), HEAD),
)


def normal_module(path: str) -> str:
    """A module path as the text model spells it: ``language_model.model.layers.0`` is ``model.layers.0``.

    So is ``layers.0``, of a model without its head.

    It may carry a parameter's name behind it.
    """
    if path.startswith(_LAYERS):
        return path
    for wrapped, bare in _WRAPPERS:
        if path.startswith(wrapped):
            return bare + path.removeprefix(wrapped)
    if _BACKBONE.match(path):
        return _BACKBONE.sub("model.", path, count=1)
    if _BARE.match(path):
        return f"model.{path}"
    whole = f"transformer.{path}" if _BARE_GPT2.match(path) else path
    ends = ((end, pattern.match(whole)) for pattern, end in _ENDS)
    return next((end + whole[found.end() :] for end, found in ends if found), whole)


# How transformers' multimodal models call what is beside the text model, as a whole part of a module's path.
_TOWER: Final = re.compile(
    r"(^|\.)((vision|visual|image|audio|speech)(_\w+)?|(embed|multi_modal|multimodal|mm|modality)_"
    r"(vision|audio|projector|projection|adaptor)|connector|vpm|apm|resampler|perceiver|img_\w+)\."
)


@remembered
def tower_of(module: str) -> str | None:
    """The vision or audio part that a module belongs to, or None.

    The part's name stands before the number of a layer: what stands behind is a module of the text model.
    """
    match = _TOWER.search(f"{re.split(r'[.][0-9]', module)[0]}.")
    return match[2] if match else None
