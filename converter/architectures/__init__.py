"""Architectures as data: one TOML each says how Hugging Face modules become GGUF tensors. Loaded on first use.

Sources: the tensor names of each graph in llama.cpp's src/models/*.cpp and src/llama-arch.cpp, the row orders of
its conversion scripts, the module shapes of transformers' modeling files. An architecture is listed here only with an
end-to-end case in real llama.cpp.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

NAMES: Final = ("gemma", "gemma2", "gemma3", "llama", "qwen2", "qwen3")

RowOrder = Literal["identity", "interleave_rope"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a Hugging Face module goes: ``tensor`` is the GGUF name without ``.weight``.

    ``shape`` names the weight's dimensions, output rows first. ``rows`` is GGUF's row order, over ``heads`` heads.
    ``add`` is added to the stored Hugging Face weight (Gemma's norms are kept as w - 1 there).
    """

    module: str
    tensor: str
    shape: tuple[str, ...]
    rows: RowOrder = "identity"
    heads: str | None = None
    add: float = 0.0


@dataclass(frozen=True, slots=True)
class Architecture:
    """One ``general.architecture`` of llama.cpp, and the Hugging Face models that become it."""

    name: str
    model_types: tuple[str, ...]
    tied_by_default: bool
    reads_output: bool
    targets: tuple[Target, ...]
    config_defaults: Mapping[str, int]

    def target(self, module: str) -> Target | None:
        """The target of a module such as ``model.layers.3.mlp.up_proj``, or None where llama.cpp has no such tensor."""
        return self._resolve(module, {target.module: target for target in self.targets})

    def source(self, tensor: str) -> Target | None:
        """The target whose GGUF tensor is ``tensor`` (without ``.weight`` or ``.bias``)."""
        return self._resolve(tensor, {target.tensor: target for target in self.targets})

    def _resolve(self, name: str, by_pattern: Mapping[str, Target]) -> Target | None:
        layer = re.search(r"\.(\d+)\.", name)
        pattern = f"{name[: layer.start(1)]}{{i}}{name[layer.end(1) :]}" if layer else name
        target = by_pattern.get(pattern)
        if target is None or not layer:
            return target
        return Target(
            target.module.replace("{i}", layer[1]),
            target.tensor.replace("{i}", layer[1]),
            target.shape,
            target.rows,
            target.heads,
            target.add,
        )


def architecture_named(name: str) -> Architecture | None:
    """The architecture with this ``general.architecture``, or None where it is not supported."""
    return _load(name) if name in NAMES else None


def architecture_of_model_type(model_type: str) -> Architecture | None:
    """The architecture of a Hugging Face config's ``model_type``, or None where it is not supported."""
    return next((a for a in map(_load, NAMES) if model_type in a.model_types), None)


@cache
def _load(name: str) -> Architecture:
    data = tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))
    targets = tuple(
        Target(
            module,
            row["tensor"],
            tuple(row["shape"]),
            row.get("rows", "identity"),
            row.get("heads"),
            row.get("add", 0.0),
        )
        for module, row in data["modules"].items()
    )
    return Architecture(
        name,
        tuple(data["model_types"]),
        data["tied_by_default"],
        data["reads_output"],
        targets,
        data["config_defaults"],
    )
