"""The base's config has a setting that llama.cpp's graph of its architecture takes for granted, with another value.

Why it matters: an activation, a scale or a pattern of windows is part of the graph, not of the file: the model would
load, and compute something else.

What to do: give a GGUF of the base that is known to work, or serve the model with another program.
"""

from collections.abc import Iterator
from typing import Final

from converter.architectures import Architecture
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity

_GLOBAL: Final = "full_attention"


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each setting that the graph doesn't follow."""
    if base.is_convertible_checkpoint:
        for field, found, wanted in _unread(base):
            yield Problem(field, f"is {found!r} in config.json, and {wanted} in llama.cpp's graph", WHOLE_BASE)


def _unread(base: BaseModel) -> Iterator[tuple[str, object, str]]:
    """The fields that the graph doesn't follow: name, value, and what the graph has."""
    architecture, config = base.architecture, base.config
    if architecture is None:
        return
    for field, values in architecture.config.fixed.items():
        value = architecture.setting(config, field)
        if value is not None and value not in values:
            yield field, value, " or ".join(map(repr, values)) or "none"
    for field in architecture.metadata.required.values():
        if not isinstance(architecture.setting(config, field), int | float):
            yield field, architecture.setting(config, field), "a number"
    yield from _scale(base, architecture)
    yield from _windows(base, architecture)
    yield from _unrotated(base, architecture)
    yield from _unrotated_globally(base)


def _scale(base: BaseModel, architecture: Architecture) -> Iterator[tuple[str, object, str]]:
    scale = architecture.setting(base.config, "query_pre_attn_scalar")
    if architecture.graph.scale_by_width_at is None:
        return
    by_width = base.dims["n_layer"] == architecture.graph.scale_by_width_at
    wanted = base.dims["hidden"] // base.dims["n_head"] if by_width else base.dims["head_dim"]
    if scale != wanted:
        yield "query_pre_attn_scalar", scale, str(wanted)


def _windows(base: BaseModel, architecture: Architecture) -> Iterator[tuple[str, object, str]]:
    """Layers are told apart by a list, or by every how many of them attends to everything."""
    every, n_layer = architecture.graph.window_pattern, base.dims["n_layer"]
    if every is None:
        return
    for field in ("sliding_window_pattern", "_sliding_window_pattern"):
        if base.config.get(field) not in (None, every):
            yield field, base.config[field], str(every)
    types = base.config.get("layer_types")
    is_global = [(i + 1) % every == 0 for i in range(n_layer)]
    if isinstance(types, list) and [kind == _GLOBAL for kind in types] != is_global:
        yield "layer_types", types, f"full_attention in each {every}th layer only"


def _unrotated(base: BaseModel, architecture: Architecture) -> Iterator[tuple[str, object, str]]:
    """Layers that don't rotate are told by a list of 0 and 1, or by every how many of them doesn't."""
    every, layers = architecture.graph.rope_pattern, base.config.get("no_rope_layers")
    if every and base.config.get("no_rope_layer_interval") not in (None, every):
        yield "no_rope_layer_interval", base.config["no_rope_layer_interval"], str(every)
    if every and layers and layers != [int((i + 1) % every != 0) for i in range(base.dims["n_layer"])]:
        yield "no_rope_layers", layers, f"0 in each {every}th layer only"


def _unrotated_globally(base: BaseModel) -> Iterator[tuple[str, object, str]]:
    """Muse Glimmer's layers that attend to everything don't rotate, and the others do."""
    bases = base.config.get("layer_rope_theta")
    if isinstance(bases, list) and list(map(bool, bases)) != [_GLOBAL not in traits for traits in base.layer_traits]:
        yield "layer_rope_theta", bases, f"0 in each layer of {_GLOBAL} only"


RULE = Rule("BM045", "setting-not-read", Severity.ERROR, BaseCheck(check), gguf=True)
