"""Architectures as data: one TOML each says how Hugging Face modules become GGUF tensors. Loaded on first use.

A table may begin with ``like = "llama"``: it then says only what differs, and ``false`` for what it hasn't.

Sources: the tensor names of each graph in llama.cpp's src/models/*.cpp and src/llama-arch.cpp, the row orders of
its conversion scripts, the module shapes of transformers' modeling files. An architecture is listed here only with an
end-to-end case in real llama.cpp.
"""

import re
import tomllib
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from converter.orders import IDENTITY, Orders, axes_of, is_part, order

# The table of a Hugging Face config's ``model_type``. Of a multimodal model its own type counts before that of its
# text_config, as in llama.cpp's converter.
MODEL_TYPES: Final[Mapping[str, str]] = {
    "afmoe": "afmoe",
    "apertus": "apertus",
    "arcee": "arcee",
    "bloom": "bloom",
    "cohere": "command-r",
    "cohere2": "cohere2",
    "deepseek_v2": "deepseek_v2",
    "deepseek_v3": "deepseek2",
    "dots1": "dots1",
    "ernie4_5": "ernie4_5",
    "ernie4_5_moe": "ernie4_5-moe",
    "exaone4": "exaone4",
    "falcon": "falcon",
    "falcon_h1": "falcon-h1",
    "falcon_mamba": "falcon_mamba",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "gemma3n": "gemma3n",
    "gemma3n_text": "gemma3n",
    "gemma4": "gemma4",
    "gemma4_text": "gemma4",
    "glm": "chatglm",
    "glm4": "glm4",
    "glm4_moe": "glm4moe",
    "glm4_moe_lite": "glm4_moe_lite",
    "gpt2": "gpt2",
    "gpt_bigcode": "starcoder",
    "gpt_neox": "gptneox",
    "gpt_oss": "gpt-oss",
    "granite": "granite",
    "granitemoe": "granitemoe",
    "granitemoehybrid": "granitehybrid",
    "hunyuan_v1_dense": "hunyuan-dense",
    "hunyuan_v1_moe": "hunyuan-moe",
    "hy_v3": "hy_v3",
    "internlm3": "internlm3",
    "iquestcoder": "iquestcoder",
    "jamba": "jamba",
    "lfm2": "lfm2",
    "lfm2_moe": "lfm2moe",
    "llama": "llama",
    "llama4": "llama4",
    "llama4_text": "llama4",
    "mamba": "mamba",
    "mamba2": "mamba2",
    "minimax_m2": "minimax-m2",
    "ministral3": "ministral3",
    "mistral": "mistral",
    "mistral3": "mistral3",
    "mixtral": "mixtral",
    "muse_glimmer": "muse-glimmer",
    "muse_glimmer_text": "muse-glimmer",
    "nemotron": "nemotron",
    "nemotron_h": "nemotron_h",
    "olmo": "olmo",
    "olmo2": "olmo2",
    "olmo3": "olmo3",
    "olmoe": "olmoe",
    "phi": "phi2",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen2_5_vl": "qwen2vl",
    "qwen2_5_vl_text": "qwen2vl",
    "qwen2_moe": "qwen2moe",
    "qwen2_vl": "qwen2vl",
    "qwen2_vl_text": "qwen2vl",
    "qwen3": "qwen3",
    "qwen3_5": "qwen35",
    "qwen3_5_moe": "qwen35moe",
    "qwen3_5_moe_text": "qwen35moe",
    "qwen3_5_text": "qwen35",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
    "qwen3_vl": "qwen3vl",
    "qwen3_vl_moe": "qwen3vlmoe",
    "qwen3_vl_text": "qwen3vl",
    "seed_oss": "seed_oss",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
}


# The table of those whose layers all attend: llama.cpp's converter makes models of another architecture of them.
ALL_ATTENTION: Final[Mapping[str, str]] = {"granitemoehybrid": "granite4"}
# The table of those that have layers of experts, likewise.
WITH_EXPERTS: Final[Mapping[str, str]] = {"nemotron_h": "nemotron_h_moe"}


class Variant(NamedTuple):
    """A table of models that llama.cpp serves by the graph ``of`` another one; GGUFs of it have the ``key``."""

    of: str
    key: str | None = None


VARIANTS: Final[Mapping[str, Variant]] = {
    "deepseek_v2": Variant("deepseek2"),
    "falcon_mamba": Variant("mamba"),
    "glm4_moe_lite": Variant("deepseek2"),
    "granite4": Variant("granite", "ssm.conv_kernel"),
    "internlm3": Variant("llama"),
    "iquestcoder": Variant("llama"),
    "ministral3": Variant("mistral3"),
    "mixtral": Variant("llama", "expert_count"),
    "mistral": Variant("llama"),
    "olmo3": Variant("olmo2", "attention.sliding_window"),
}
TABLES: Final = tuple(sorted({*MODEL_TYPES.values(), *ALL_ATTENTION.values(), *WITH_EXPERTS.values()}))
NAMES: Final = tuple(table for table in TABLES if table not in VARIANTS)  # of general.architecture


class Place(NamedTuple):
    """Where a Hugging Face module goes: ``tensor`` is the GGUF name without ``.weight``.

    ``shape`` names the dimensions of PEFT's delta, output rows first. ``rows`` and ``columns`` are GGUF's orders of
    them (converter/orders.py). ``add`` is added to the stored Hugging Face weight (Gemma's norms are kept as w - 1
    there). ``transposed`` says that Hugging Face stores the weight as (in, out), ``expert`` which slab of the tensor
    the module is, ``bias`` that llama.cpp adds ``<tensor>.bias``, and ``lora`` that it honours a LoRA on the tensor,
    which it never does on a vector. ``f32`` says that llama.cpp's converter never makes the matrix smaller than F32.
    ``bare`` is a parameter without a module, ``parameter`` what it is of the GGUF tensor: its ``weight``, its ``bias``,
    or nothing behind the tensor's name. ``operation`` makes other numbers of it: "negative_exp" is -exp(x).
    ``folded``: GGUF has the vector as a matrix of so many rows, a dimension.
    ``stacked``: GGUF has a matrix of each head's rows in their order, "plain" or "turned" round.
    ``factors`` are sections of rows, each a dimension and the config's fields that its numbers are multiplied by in
    GGUF, one after the other. ``column``: GGUF has a vector as a matrix of one column.
    Where ``only`` names traits, the module is in layers that have one of them; in those with one of ``never`` it isn't,
    and in those with one of ``optional`` it may be missing. A module with a dimension of 0 isn't there either.
    """

    module: str
    tensor: str
    shape: tuple[str, ...]
    rows: str = ""
    columns: str = ""
    add: float = 0.0
    transposed: bool = False
    bias: bool = False
    expert: int | None = None
    lora: bool = True
    f32: bool = False
    bare: bool = False
    parameter: str = "weight"
    operation: str = ""
    folded: str = ""
    stacked: Literal["", "plain", "turned"] = ""
    factors: tuple[tuple[str, ...], ...] = ()
    column: bool = False
    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def orders(self, dims: Mapping[str, int]) -> Orders:
        """GGUF's orders of output rows and input columns, by the dimensions of the module's layer."""
        rows = order(self.rows, dims[self.shape[-2:][0]], dims) if self.rows else IDENTITY
        columns = order(self.columns, dims[self.shape[-1]], dims) if self.columns else IDENTITY
        return Orders(rows, columns)

    def name(self, parameter: str) -> str:
        """The GGUF tensor that holds the module's ``weight`` or ``bias``."""
        own = self.parameter if parameter == "weight" else parameter
        return f"{self.tensor}.{own}" if own else self.tensor

    def is_in(self, traits: Container[str]) -> bool:
        """Whether a layer of these traits has the module."""
        return (not self.only or any(trait in traits for trait in self.only)) and not any(
            trait in traits for trait in self.never
        )

    @property
    def is_whole_tensor(self) -> bool:
        """Whether the module and the GGUF tensor hold the same numbers, in whatever order."""
        is_expert = "{e}" in self.module or self.expert is not None
        return not (is_expert or is_part(self.rows) or is_part(self.columns))


class Made(NamedTuple):
    """A vector that no module has: how long it is, a dimension, and its one value, or the config's field of it."""

    size: str
    value: float | str


class Config(NamedTuple):
    """What a Hugging Face config says, and what it leaves out.

    ``tied_by_default``: head and embedding are one where it says nothing. ``dims`` names the fields behind a dimension,
    the first one present counts, where they aren't the usual. ``defaults`` are those of the config's class. ``fixed``
    has the values of fields that llama.cpp's graph takes for granted. ``renamed`` are fields by their names in older
    configs, ``alike`` fields that may be listed layer by layer, with one value for all. ``adjusts_ffn``: the width of
    feed-forward parts follows from what the config says by LFM2's rule.
    """

    tied_by_default: bool
    defaults: Mapping[str, Any]
    adjusts_ffn: bool = False
    alike: Sequence[str] = ()
    dims: Mapping[str, Sequence[str]] = {}
    fixed: Mapping[str, Sequence[Any]] = {}
    renamed: Mapping[str, str] = {}


class Graph(NamedTuple):
    """What llama.cpp's loader and graph have.

    ``reads_output``: a head of its own. ``rope``: the types of rope scaling beside none. ``partial_rope``: a part of
    each head can be left unrotated. ``alternates``: a layer's number decides between local and global attention.
    ``window_pattern``: the last of so many layers attends globally. ``ignores_window``: there is no sliding window.
    ``rope_pattern``: the last of so many layers doesn't rotate. ``scale_by_width_at``: with so many layers the
    attention's scale comes from hidden / heads instead of head_dim. ``mrope``: positions have several sections, which a
    text's are the same in; these where the config names none. ``norms_embedding``: what is looked up goes through a
    norm. ``sizes`` are dimensions that are the same in every model, so that no GGUF says them.
    """

    reads_output: bool
    rope: Sequence[str] = ()
    partial_rope: bool = False
    alternates: bool = False
    window_pattern: int | None = None
    ignores_window: bool = False
    rope_pattern: int | None = None
    scale_by_width_at: int | None = None
    mrope: Sequence[int] = ()
    norms_embedding: bool = False
    sizes: Mapping[str, int] = {}


class Layers(NamedTuple):
    """How layers differ, as what the config says of each: its traits (converter/derive/layers.py).

    ``kinds`` is the cycle of kinds where the config lists none; it ends with the last layer where ``to_the_last`` says
    so. ``traits`` are the other ones that the table speaks of.
    By trait, ``dims`` names the config's fields behind a dimension, or says it; ``factors`` multiply it.
    """

    kinds: Sequence[str] = ()
    traits: Sequence[str] = ()
    to_the_last: bool = False
    dims: Mapping[str, Mapping[str, Sequence[str] | int]] = {}
    factors: Mapping[str, Mapping[str, int]] = {}


class Metadata(NamedTuple):
    """The config's field behind a GGUF key (without ``NAME.``); ``optional`` where the config may have none.

    ``rope`` names fields of its rope_parameters. ``by_layer``: whether each layer has a trait. ``dims``: a dimension in
    layers of a trait. ``counts``: how long the list is that lies at a path of the config. ``constant``: a value that no
    field says. ``numbers``: the parameter of each layer that is one number, behind a key without NAME. ``only_copied``:
    why a Hugging Face base has no such metadata; only a GGUF base does.
    """

    required: Mapping[str, str]
    optional: Mapping[str, str] = {}
    rope: Mapping[str, str] = {}
    by_layer: Mapping[str, str] = {}
    dims: Mapping[str, Sequence[str]] = {}
    counts: Mapping[str, str] = {}
    constant: Mapping[str, Any] = {}
    numbers: Mapping[str, str] = {}
    only_copied: str = ""


class Architecture(NamedTuple):
    """One ``general.architecture`` of llama.cpp, and the Hugging Face models that become it.

    ``modules`` are the places of each module, with ``{i}`` for the layer and ``{e}`` for the expert; ``aliases`` are
    other names of them, which checkpoints or adapters of an earlier transformers have. ``made`` are tensors of each
    layer that follow from the config.
    """

    name: str
    modules: Mapping[str, tuple[Place, ...]]
    graph: Graph
    config: Config
    metadata: Metadata
    layers: Layers = Layers()
    aliases: Mapping[str, str] = {}
    made: Mapping[str, Made] = {}

    def setting(self, config: Mapping[str, object], field: str) -> Any:
        """The value of a config's field; where it says nothing, what the config class takes."""
        return config[field] if field in config else self.config.defaults.get(field)

    def places(self, module: str) -> tuple[Place, ...]:
        """The places of a module such as ``model.layers.3.mlp.up_proj``; none where llama.cpp has no such tensor."""
        numbers, pattern = numbers_in(module), _pattern(module)
        patterns = self.modules.get(self.aliases.get(pattern, pattern), ())
        return tuple(_numbered(place, numbers) for place in patterns)

    def place(self, module: str) -> Place | None:
        """The first of the module's places, or None."""
        return next(iter(self.places(module)), None)

    def canonical(self, module: str) -> str:
        """A module's name where it is an alias of one, else the module itself."""
        alias = self.aliases.get(_pattern(module)) if self.aliases else None
        return _with_numbers(alias, numbers_in(module)) if alias else module

    def source(self, tensor: str) -> Place | None:
        """The place of the one module that is the whole GGUF tensor (without ``.weight`` or ``.bias``), or None."""
        pattern = _pattern(tensor)
        whole = (t for places in self.modules.values() for t in places if t.is_whole_tensor and t.tensor == pattern)
        return next((_numbered(place, numbers_in(tensor)) for place in whole), None)

    @property
    def dims(self) -> frozenset[str]:
        """The dimensions that shapes and orders of this architecture name."""
        places = [place for places in self.modules.values() for place in places]
        named = (axes_of(place.rows) | axes_of(place.columns) for place in places if place.rows or place.columns)
        return frozenset(dim for place in places for dim in place.shape).union(*named)


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


def _with_numbers(pattern: str, numbers: tuple[int, ...]) -> str:
    for placeholder, number in zip(("{i}", "{e}"), numbers, strict=False):
        pattern = pattern.replace(placeholder, str(number))
    return pattern


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


def architecture_named(name: str, keys: Container[str] = ()) -> Architecture | None:
    """The architecture with this ``general.architecture``, of a GGUF that has these ``keys``; None: not supported."""
    if name not in NAMES:
        return None
    variants = (table for table, (of, key) in VARIANTS.items() if of == name and key and f"{name}.{key}" in keys)
    return _load(next(variants, name))


def architecture_of_model_type(model_type: str, text_type: str | None = None) -> Architecture | None:
    """The architecture of a config's ``model_type``, and of its text_config's where it has one; None: not supported."""
    table, text_table = MODEL_TYPES.get(model_type), MODEL_TYPES.get(text_type or "")
    if table and text_table and architecture_of_table(table) != architecture_of_table(text_table):
        text_table = None
    found = text_table or table
    return _load(found) if found else None


def architecture_all_attention(model_type: str) -> Architecture | None:
    """The architecture of a ``model_type`` whose layers all attend, where it is another one."""
    table = ALL_ATTENTION.get(model_type)
    return _load(table) if table else None


def architecture_with_experts(model_type: str) -> Architecture | None:
    """The architecture of a ``model_type`` with layers of experts, where it is another one."""
    table = WITH_EXPERTS.get(model_type)
    return _load(table) if table else None


def architecture_of_table(table: str) -> str:
    """The ``general.architecture`` of a table's models."""
    return VARIANTS[table].of if table in VARIANTS else table


@cache
def _load(table: str) -> Architecture:
    data = _table(table)
    return Architecture(
        architecture_of_table(table),
        {module: tuple(_places(module, rows)) for module, rows in data["modules"].items()},
        Graph(**data["graph"]),
        Config(**data["config"]),
        Metadata(**data["metadata"]),
        Layers(**data.get("layers", {})),
        data.get("aliases", {}),
        {tensor: Made(**made) for tensor, made in data.get("made", {}).items()},
    )


def _table(name: str) -> dict[str, Any]:
    """A table, laid over the one that it is like."""
    own = tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))
    parent = own.pop("like", None)
    return _laid_over(_table(parent), own) if parent else own


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are laid over each other entry by entry; ``false`` takes away what is no flag.

    The defaults of one config class say nothing of another's: they are replaced as a whole.
    """
    both = dict(below)
    for key, value in above.items():
        under = below.get(key)
        if isinstance(value, dict) and isinstance(under, dict) and key != "defaults":
            both[key] = _laid_over(under, value)
        elif value is False and key in below and not isinstance(under, bool):
            del both[key]
        else:
            both[key] = value
    return both


def _places(module: str, rows: dict[str, Any] | list[dict[str, Any]]) -> Iterator[Place]:
    """One table, or a list of them for a module that several GGUF tensors share."""
    for row in rows if isinstance(rows, list) else [rows]:
        lists = {name: _tuple(value) for name, value in row.items() if isinstance(value, list)}
        yield Place(module, **{"lora": len(row["shape"]) > 1, **row, **lists})


def _tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)
