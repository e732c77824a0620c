"""Architectures as data: one TOML each says how Hugging Face modules become GGUF tensors. Loaded on first use.

Sources: the tensor names of each graph in llama.cpp's src/models/*.cpp and src/llama-arch.cpp, the row orders of
its conversion scripts, the module shapes of transformers' modeling files. An architecture is listed here only with an
end-to-end case in real llama.cpp.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

NAMES: Final = (
    "cohere2",
    "command-r",
    "gemma",
    "gemma2",
    "gemma3",
    "gpt2",
    "granite",
    "llama",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "smollm3",
    "stablelm",
    "starcoder2",
)

RowOrder = Literal["identity", "interleave_rope", "first_half", "second_half"]


class Place(NamedTuple):
    """Where a Hugging Face module goes: ``tensor`` is the GGUF name without ``.weight``.

    ``shape`` names the dimensions of PEFT's delta, output rows first. ``row_order`` is GGUF's row order, over ``heads``
    heads. ``add`` is added to the stored Hugging Face weight (Gemma's norms are kept as w - 1 there). ``transposed``
    says that Hugging Face stores the weight as (in, out), ``expert`` which slab of the tensor the module is, ``bias``
    that llama.cpp adds ``<tensor>.bias``, and ``lora`` that it honours a LoRA on the tensor. ``f32`` says that
    llama.cpp's converter never makes the matrix smaller than F32.
    """

    module: str
    tensor: str
    shape: tuple[str, ...]
    row_order: RowOrder = "identity"
    heads: str | None = None
    add: float = 0.0
    transposed: bool = False
    bias: bool = False
    expert: int | None = None
    lora: bool = True
    f32: bool = False

    @property
    def is_whole_tensor(self) -> bool:
        """Whether the module and the GGUF tensor hold the same numbers, in whatever order."""
        return self.row_order in {"identity", "interleave_rope"} and "{e}" not in self.module and self.expert is None


class Architecture(NamedTuple):
    """One ``general.architecture`` of llama.cpp, and the Hugging Face models that become it.

    ``modules`` are the places of each module, with ``{i}`` for the layer and ``{e}`` for the expert.
    ``alternates`` says that a layer's number decides between local and global attention. ``config_fields`` names the
    config's fields behind a dimension, the first one present counts, where they aren't the usual.

    Of a Hugging Face base: ``metadata`` names the config's field behind a GGUF key (without ``NAME.``),
    ``optional_metadata`` of one that is left out where the config has none. ``fixed`` has the values of fields that
    llama.cpp's graph takes for granted. ``rope`` are the types of rope scaling it has, ``partial_rope`` says whether
    it can leave a part of each head unrotated. ``window_pattern``: the last of so many layers attends globally.
    ``ignores_window``: its graph has no sliding window. ``rope_pattern``: the last of so many layers doesn't rotate.
    ``scale_by_width_at``: with so many layers the attention's
    scale comes from hidden / heads instead of head_dim.
    """

    name: str
    model_types: tuple[str, ...]
    tied_by_default: bool
    reads_output: bool
    alternates: bool
    modules: Mapping[str, tuple[Place, ...]]
    config_fields: Mapping[str, Sequence[str]]
    config_defaults: Mapping[str, Any]
    metadata: Mapping[str, str]
    optional_metadata: Mapping[str, str]
    fixed: Mapping[str, Sequence[Any]]
    rope: Sequence[str]
    partial_rope: bool
    window_pattern: int | None
    ignores_window: bool
    rope_pattern: int | None
    scale_by_width_at: int | None

    def setting(self, config: Mapping[str, object], field: str) -> Any:
        """The value of a config's field; where it says nothing, what the config class takes."""
        return config[field] if field in config else self.config_defaults.get(field)

    def places(self, module: str) -> tuple[Place, ...]:
        """The places of a module such as ``model.layers.3.mlp.up_proj``; none where llama.cpp has no such tensor."""
        numbers = numbers_in(module)
        patterns = self.modules.get(_pattern(module), ())
        return tuple(_numbered(place, numbers) for place in patterns)

    def place(self, module: str) -> Place | None:
        """The first of the module's places, or None."""
        return next(iter(self.places(module)), None)

    def source(self, tensor: str) -> Place | None:
        """The place of the one module that is the whole GGUF tensor (without ``.weight`` or ``.bias``), or None."""
        pattern = _pattern(tensor)
        whole = (t for places in self.modules.values() for t in places if t.is_whole_tensor and t.tensor == pattern)
        return next((_numbered(place, numbers_in(tensor)) for place in whole), None)

    @property
    def dims(self) -> frozenset[str]:
        """The dimensions that shapes of this architecture name."""
        return frozenset(dim for places in self.modules.values() for place in places for dim in place.shape)


_NUMBER: Final = re.compile(r"(?<=\.)(?:0|[1-9][0-9]{0,8})(?=\.)")  # no layer has a longer one


# A module is asked for by a dozen rules: these three are most of what looking it up costs.
@lru_cache(maxsize=1 << 14)
def numbers_in(name: str) -> tuple[int, ...]:
    """The numbers in a dotted path: the layer, then the expert."""
    return tuple(int(number) for number in _NUMBER.findall(name))


@lru_cache(maxsize=1 << 14)
def _pattern(name: str) -> str:
    """The name with its numbers as placeholders; empty for a name that holds a placeholder itself."""
    if "{" in name:
        return ""
    for placeholder in ("{i}", "{e}"):
        name = _NUMBER.sub(placeholder, name, count=1)
    return name


@lru_cache(maxsize=1 << 14)
def _numbered(place: Place, numbers: tuple[int, ...]) -> Place:
    """The place of one layer, and of one expert."""
    if not numbers:
        return place
    layer, *experts = numbers
    module, tensor = (name.replace("{i}", str(layer)) for name in (place.module, place.tensor))
    if not experts:
        return place._replace(module=module, tensor=tensor)
    return place._replace(module=module.replace("{e}", str(experts[0])), tensor=tensor, expert=experts[0])


def architecture_named(name: str) -> Architecture | None:
    """The architecture with this ``general.architecture``, or None where it is not supported."""
    return _load(name) if name in NAMES else None


def architecture_of_model_type(model_type: str) -> Architecture | None:
    """The architecture of a Hugging Face config's ``model_type``, or None where it is not supported."""
    # The namesake first: it is nearly always the one, and each other table costs a few milliseconds.
    names = sorted(NAMES, key=lambda name: name != model_type)
    return next((a for a in map(_load, names) if model_type in a.model_types), None)


@cache
def _load(name: str) -> Architecture:
    data = tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))
    return Architecture(
        name,
        tuple(data["model_types"]),
        data["tied_by_default"],
        data["reads_output"],
        data.get("alternates", False),
        {module: tuple(_places(module, rows)) for module, rows in data["modules"].items()},
        data.get("config_fields", {}),
        data["config_defaults"],
        data["metadata"],
        data.get("optional_metadata", {}),
        data.get("fixed", {}),
        data.get("rope", ()),
        data.get("partial_rope", False),
        data.get("window_pattern"),
        data.get("ignores_window", False),
        data.get("rope_pattern"),
        data.get("scale_by_width_at"),
    )


def _places(module: str, rows: dict[str, Any] | list[dict[str, Any]]) -> Iterator[Place]:
    """One table, or a list of them for a module that several GGUF tensors share."""
    for row in rows if isinstance(rows, list) else [rows]:
        yield Place(module, **{**row, "shape": tuple(row["shape"])})
