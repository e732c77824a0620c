"""Keys that PEFT doesn't load: of wrapped and bare models, with another prefix than PEFT's, of other trainers.

All but the last have one name that PEFT would have given them; they are read under it on the user's word
(``with_renamed_keys``). Other trainers' layouts differ in more than names (transposed factors, another order of rows,
fused projections), so they are told by name, with the way to a PEFT adapter.

Sources: torch/_dynamo/eval_frame.py (_orig_mod), torch/nn/parallel/distributed.py (module),
torch/distributed/fsdp/_common_utils.py, torch/distributed/algorithms/_checkpoint/checkpoint_wrapper.py.
"""

import re
from typing import Final, NamedTuple

_PREFIX: Final = "base_model.model."
_PREFIXES: Final = rf"\A(?:{re.escape(_PREFIX)})+"
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
_BARE: Final = re.compile(r"(?:layers\.\d+\.(?:self_attn|mlp|\w*layernorm)|embed_tokens|norm)\.")
_TINKERS_HEAD: Final = re.compile(r"(?:model\.)?unembed_tokens(?=\.)")
_NAMED: Final = re.compile(
    r"(?P<factor>\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))\.(?P<name>[^.]+)(?P<end>(?:\.weight|\.bias)?)$"
)
_PARAMETERS: Final = frozenset({"default", "weight", "bias"})
# Other trainers, by what no key of PEFT's has.
_TRAINERS: Final = tuple(
    (re.compile(pattern), name, way)
    for pattern, name, way in (
        (r"\.attn\.\w+\.lora_[ab]\.weight$", "torchtune's", "save it with torchtune's checkpointer as a PEFT adapter"),
        (
            r"\.lora_[ab]$",
            "MLX's",
            "linears of it are read beside the adapter_config.json of mlx_lm, all else only mlx_lm.fuse merges",
        ),
        (
            r"^lora_(?:unet|te)\d?_|\.lora_(?:down|up)\.",
            "kohya's",
            "train again with PEFT, or rename and scale it there",
        ),
        (  # LFM2 has a feed_forward.w1 too, but no key of PEFT's begins with its layers
            r"\.attention\.w[qkvo]\.lora_|^layers\.\d+\.feed_forward\.w[123]\.lora_",
            "mistral-finetune's",
            "merge it with its own tools",
        ),
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
    is_bare: bool = False  # PEFT's own of a model without its head, and of no other


def foreign_key(key: str) -> ForeignKey | None:
    """What a key is, if it is none that PEFT loads into a causal language model and its origin is known."""
    for pattern, name, way in _TRAINERS:
        if pattern.search(key):
            return ForeignKey(f"is {name}, not PEFT's: {way}")
    wrappers, name = _unwrapped(key)
    bare, told = re.sub(_PREFIXES, "", name), []
    if wrappers:
        told.append(f"lies in {', '.join(wrappers)}")
    is_bare = _BARE.match(bare) is not None
    if is_bare:
        told.append("is of a model without its head (AutoModel), whose paths lack the leading model.")
        bare = f"model.{bare}"
    if _TINKERS_HEAD.match(bare):
        told.append("is Tinker's name for lm_head")
        bare = _TINKERS_HEAD.sub("lm_head", bare, count=1)
    if (named := _NAMED.search(bare)) and named["name"] not in _PARAMETERS:
        told.append(f"holds the name of an adapter, {named['name']!r}")
        bare = f"{bare[: named.start()]}{named['factor']}{named['end']}"
    if not told and (what := _of_prefix(name)):
        told.append(what)
    is_bare = is_bare and len(told) == 1 and not _of_prefix(name)
    return ForeignKey(" and ".join(told), _PREFIX + bare, is_bare) if told else None


def _of_prefix(key: str) -> str:
    """What is wrong with what stands before the module's path; empty where it is PEFT's own.

    A model that was wrapped twice has it twice, which names the same module.
    """
    return "" if key.startswith("base_model.") else f"lacks PEFT's prefix {_PREFIX}"


def _unwrapped(key: str) -> tuple[tuple[str, ...], str]:
    """The wrappers of a key, each once, and the key without them."""
    found: dict[str, None] = {}
    while match := _WRAPPER.search(key):
        part = match[1] or match[2]
        found[f"{part} ({_ANYWHERE.get(part) or _OUTSIDE[part]})"] = None
        key = key[: match.start()] + key[match.end() :]
    return tuple(found), key
