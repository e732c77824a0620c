"""A PEFT adapter directory as data: config, tensor table, LoRA pairs. No tensor bytes are read.

Key layout: ``get_peft_model_state_dict`` in peft/utils/save_and_load.py (PEFT 0.21.2).
"""

import re
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Final, Literal

from converter.read.adapter_config import AdapterConfig, UnreadableConfig, read_adapter_config
from converter.read.checkpoint import (
    CONFIG_NAME,
    INDEX_NAME,
    PICKLE_NAME,
    SAFETENSORS_NAME,
    UnreadableIndex,
    is_lfs_pointer,
    is_local_name,
    read_index,
)
from converter.read.module_paths import EMBEDDING, HEAD, normal_module
from converter.read.patterns import first_match
from converter.read.safetensors_header import SafetensorsHeader, UnreadableHeader, read_safetensors_header
from converter.read.stored import StoredTensor

# What kept a file, or a part of it, from being read. Rules of the families ST, CF and SC report each.
FaultKind = Literal[
    "config-missing", "config", "weights-missing", "weights", "lfs-pointer", "pickle", "index", "shard-name"
]

Role = Literal[
    "lora_A",
    "lora_B",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "lora_B.bias",
    "base_layer.weight",
    "base_layer.bias",
    "weight",
    "bias",
    "unknown",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that could not be read: which file, and why."""

    kind: FaultKind
    path: Path
    message: str


@dataclass(frozen=True, slots=True)
class AdapterTensor:
    """One tensor: its key, the module it belongs to (Hugging Face path without ``.weight``), its role."""

    key: str
    module: str
    role: Role
    tensor: StoredTensor


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The two factors of one module's delta, scaling * B @ A.

    A linear module has lora_A (r, in) and lora_B (out, r). An embedding has lora_embedding_A (r, n_rows) and
    lora_embedding_B (width, r), and its delta is the transpose, (n_rows, width): peft/tuners/lora/layer.py.
    """

    module: str
    a: AdapterTensor
    b: AdapterTensor
    scaling: float

    @property
    def is_embedding(self) -> bool:
        """Whether the factors are an embedding's."""
        return self.a.role == "lora_embedding_A"

    @property
    def rank(self) -> int:
        """r, as lora_A's shape states it."""
        return self.a.tensor.shape[0]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A PEFT adapter: the directory, its config and headers, every tensor, and what could not be read."""

    path: Path
    config: AdapterConfig | None
    headers: tuple[SafetensorsHeader, ...]
    tensors: tuple[AdapterTensor, ...]
    faults: tuple[Fault, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that have tensors, in file order, each once."""
        return tuple(dict.fromkeys(tensor.module for tensor in self.tensors))

    @property
    def by_module(self) -> dict[str, dict[Role, AdapterTensor]]:
        """The tensors of each module by role; of two with one role (rule LO003) the last."""
        result: dict[str, dict[Role, AdapterTensor]] = {}
        for tensor in self.tensors:
            result.setdefault(tensor.module, {})[tensor.role] = tensor
        return result

    @property
    def pairs(self) -> tuple[LoraPair, ...]:
        """The complete LoRA pairs, in file order. A factor without its partner is in no pair (rule LO001)."""
        return tuple(pair for roles in self.by_module.values() for pair in self._pairs_of(roles))

    def _pairs_of(self, roles: dict[Role, AdapterTensor]) -> tuple[LoraPair, ...]:
        names: tuple[tuple[Role, Role], ...] = (
            ("lora_A", "lora_B"),
            ("lora_embedding_A", "lora_embedding_B"),
        )
        return tuple(
            LoraPair(roles[a].module, roles[a], roles[b], self._scaling(roles[a]))
            for a, b in names
            if a in roles and b in roles
        )

    def _scaling(self, a: AdapterTensor) -> float:
        rank = a.tensor.shape[0] if a.tensor.shape else 0
        return scaling(self.config, a.module, rank) if self.config and rank else 0.0

    @property
    def saved_modules(self) -> tuple[AdapterTensor, ...]:
        """Whole parameters that replace the base's (modules_to_save and its like)."""
        return tuple(tensor for tensor in self.tensors if tensor.role in ("weight", "bias"))

    @property
    def base_layers(self) -> tuple[AdapterTensor, ...]:
        """Copies of the base's own parameters that PEFT saved beside the LoRA of a head or an embedding."""
        return tuple(tensor for tensor in self.tensors if tensor.role.startswith("base_layer."))

    @property
    def is_tied_pair(self) -> bool:
        """Whether head and embedding carry one delta between them: trained with ensure_weight_tying, LoRA on both."""
        modules = {pair.module for pair in self.pairs}
        return self.config is not None and self.config.ensure_weight_tying and {EMBEDDING, HEAD} <= modules


def rank_of(config: AdapterConfig, module: str) -> int:
    """The rank that the config gives a module: rank_pattern's first match, else r."""
    key = first_match(config.rank_pattern, module)
    return config.r if key is None else config.rank_pattern[key]


def scaling(config: AdapterConfig, module: str, rank: int) -> float:
    """PEFT's factor before B @ A: alpha / r, or alpha / sqrt(r) with rsLoRA (peft/tuners/lora/layer.py, update_layer)."""
    key = first_match(config.alpha_pattern, module)
    alpha = config.lora_alpha if key is None else config.alpha_pattern[key]
    return alpha / (sqrt(rank) if config.use_rslora else rank)


def read_adapter(directory: Path) -> Adapter:
    """Read the adapter in ``directory``. What can't be read becomes a Fault; nothing is judged here."""
    config, config_faults = _read_config(directory / CONFIG_NAME)
    headers, weight_faults = _read_headers(directory)
    tensors = tuple(_adapter_tensor(header, i) for header in headers for i in range(len(header.entries)))
    return Adapter(directory, config, headers, tensors, (*config_faults, *weight_faults))


def _read_config(path: Path) -> tuple[AdapterConfig | None, tuple[Fault, ...]]:
    try:
        return read_adapter_config(path), ()
    except FileNotFoundError:
        return None, (Fault("config-missing", path, "is missing"),)
    except UnreadableConfig as error:
        return None, (Fault("config", path, str(error)),)
    except OSError as error:
        return None, (Fault("config", path, f"can't be read: {error.strerror}"),)


def _read_headers(directory: Path) -> tuple[tuple[SafetensorsHeader, ...], tuple[Fault, ...]]:
    names, faults = _weight_names(directory)
    headers: list[SafetensorsHeader] = []
    for name in names:
        read = _read_weights(directory / name)
        if isinstance(read, Fault):
            faults.append(read)
        else:
            headers.append(read)
    return tuple(headers), tuple(faults)


def _weight_names(directory: Path) -> tuple[list[str], list[Fault]]:
    if (directory / SAFETENSORS_NAME).is_symlink() or (directory / SAFETENSORS_NAME).exists():
        return [SAFETENSORS_NAME], []
    if (directory / INDEX_NAME).exists():
        return _shard_names(directory / INDEX_NAME)
    if (directory / PICKLE_NAME).exists():
        return [], [Fault("pickle", directory / PICKLE_NAME, "is a pickle, which can run code when it is loaded")]
    return [], [Fault("weights-missing", directory / SAFETENSORS_NAME, "is missing")]


def _shard_names(index: Path) -> tuple[list[str], list[Fault]]:
    try:
        names = dict.fromkeys(read_index(index).values())
    except UnreadableIndex as error:
        return [], [Fault("index", index, str(error))]
    except OSError as error:
        return [], [Fault("index", index, f"can't be read: {error.strerror}")]
    foreign = [Fault("shard-name", index, f"names the shard {name!r}") for name in names if not is_local_name(name)]
    return [name for name in names if is_local_name(name)], foreign


def _read_weights(path: Path) -> SafetensorsHeader | Fault:
    try:
        if is_lfs_pointer(path):
            return Fault("lfs-pointer", path, "is a Git LFS pointer, not the weights")
        return read_safetensors_header(path)
    except UnreadableHeader as error:
        return Fault("weights", path, str(error))
    except FileNotFoundError:
        return Fault("weights-missing", path, "is a broken link" if path.is_symlink() else "is missing")
    except OSError as error:
        return Fault("weights", path, f"can't be read: {error.strerror}")


def _adapter_tensor(header: SafetensorsHeader, index: int) -> AdapterTensor:
    info = header.entries[index]
    module, role = parse_key(info.name)
    tensor = StoredTensor(header.path, header.data_offset + info.begin, info.end - info.begin, info.shape, info.dtype)
    return AdapterTensor(info.name, module, role, tensor)


# PEFT drops the adapter's name from keys; state dicts saved by hand keep it (``lora_A.default.weight``).
_NAME: Final = r"(?:\.(?!weight$|bias$)\w+)?"
_SUFFIXES: Final[dict[Role, str]] = {
    "lora_A": rf"lora_A{_NAME}\.weight",
    "lora_B": rf"lora_B{_NAME}\.weight",
    "lora_embedding_A": rf"lora_embedding_A{_NAME}",
    "lora_embedding_B": rf"lora_embedding_B{_NAME}",
    "lora_magnitude_vector": rf"lora_magnitude_vector{_NAME}(?:\.weight)?",
    "lora_B.bias": rf"lora_B{_NAME}\.bias",
    "base_layer.weight": r"base_layer\.weight",
    "base_layer.bias": r"base_layer\.bias",
    "weight": r"(?:modules_to_save\.(?:\w+\.)?)?weight",
    "bias": r"(?:modules_to_save\.(?:\w+\.)?)?bias",
}
_ROLES: Final = {role: re.compile(rf"(?P<module>.+)\.{suffix}") for role, suffix in _SUFFIXES.items()}
_PEFT_PREFIX: Final = "base_model.model."
_FOREIGN_PARTS: Final = (
    "lora_",
    "token_adapter",
    "trainable_tokens",
    "ia3_",
    "hada_",
    "lokr_",
    "vera_",
    "oft_",
)


def parse_key(key: str) -> tuple[str, Role]:
    """The module and role of a state dict key. A key of no known form is its own module, role unknown."""
    bare = key
    while bare.startswith(_PEFT_PREFIX):
        bare = bare.removeprefix(_PEFT_PREFIX)
    for role, pattern in _ROLES.items():
        match = pattern.fullmatch(bare)
        if match and not any(part in match["module"] for part in _FOREIGN_PARTS):
            return normal_module(match["module"]), role
    return key, "unknown"
