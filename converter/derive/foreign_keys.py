"""Keys that PEFT doesn't load: of wrappers around the model when it was saved, of bare models, of other trainers.

Wrapped and bare ones have one name that PEFT would have given them; they are read under it on the user's word
(``renamed_keys``). Other trainers' layouts differ in more than names (transposed factors, another order of rows, fused
projections), so they are told by name, with the way to a PEFT adapter.

Sources: torch/_dynamo/eval_frame.py (_orig_mod), torch/nn/parallel/distributed.py (module),
torch/distributed/fsdp/_common_utils.py, torch/distributed/algorithms/_checkpoint/checkpoint_wrapper.py.
"""

import re
from typing import Final, NamedTuple

_PREFIX: Final = "base_model.model."
# What wraps modules anywhere in a path, and what wraps the whole model.
_ANYWHERE: Final = {
    "_orig_mod": "torch.compile's wrapper",
    "_fsdp_wrapped_module": "FSDP's wrapper",
    "_checkpoint_wrapped_module": "activation checkpointing's wrapper",
}
_OUTSIDE: Final = {"module": "DDP's or DeepSpeed's wrapper", "thinker": "the wrapper of Qwen's omni models"}
_WRAPPER: Final = re.compile(
    rf"(?:(?<![^.])({'|'.join(_ANYWHERE)})|(?:\A|(?<=\A{re.escape(_PREFIX)}))({'|'.join(_OUTSIDE)}))\."
)
_BARE: Final = re.compile(r"(?:layers\.\d+\.(?:self_attn|mlp)|embed_tokens)\.")
_TINKERS_HEAD: Final = re.compile(r"(?:model\.)?unembed_tokens(?=\.)")
# Other trainers, by what no key of PEFT's has.
_TRAINERS: Final = tuple(
    (re.compile(pattern), name, way)
    for pattern, name, way in (
        (r"\.attn\.\w+\.lora_[ab]\.weight$", "torchtune's", "save it with torchtune's checkpointer as a PEFT adapter"),
        (r"\.lora_[ab]$", "MLX's", "merge it with mlx_lm.fuse; its factors are PEFT's transposed, times its scale"),
        (
            r"^lora_(?:unet|te)\d?_|\.lora_(?:down|up)\.",
            "kohya's",
            "train again with PEFT, or rename and scale it there",
        ),
        (r"\.(?:attention\.w[qkvo]|feed_forward\.w[123])\.lora_", "mistral-finetune's", "merge it with its own tools"),
        (
            r"\.linear_(?:qkv|proj|fc1|fc2)\.|\.adapter\.linear_(?:in|out)\.",
            "Megatron's",
            "export it as a PEFT adapter",
        ),
    )
)


class ForeignKey(NamedTuple):
    """What a key is instead of PEFT's; ``name`` is the one that PEFT would have given it, if only names differ."""

    what: str
    name: str | None = None


def foreign_key(key: str) -> ForeignKey | None:
    """What a key is, if it is none that PEFT loads into a causal language model and its origin is known."""
    for pattern, name, way in _TRAINERS:
        if pattern.search(key):
            return ForeignKey(f"is {name}, not PEFT's: {way}")
    wrappers, name = _unwrapped(key)
    bare = name.removeprefix(_PREFIX)
    if wrappers:
        what = f"lies in {', '.join(wrappers)}"
    elif _BARE.match(bare):
        what = "is of a model without its head (AutoModel), whose paths lack the leading model."
    elif _TINKERS_HEAD.match(bare):
        what = "is Tinker's name for lm_head"
    else:
        return None
    bare = _TINKERS_HEAD.sub("lm_head", f"model.{bare}" if _BARE.match(bare) else bare, count=1)
    return ForeignKey(what, f"{_PREFIX}{bare}")


def _unwrapped(key: str) -> tuple[tuple[str, ...], str]:
    """The wrappers of a key, each once, and the key without them."""
    found: dict[str, None] = {}
    while match := _WRAPPER.search(key):
        part = match[1] or match[2]
        found[f"{part} ({_ANYWHERE.get(part) or _OUTSIDE[part]})"] = None
        key = key[: match.start()] + key[match.end() :]
    return tuple(found), key
