"""The tensors of an adapter's files: each key read by itself, then beside the config and the other keys."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from converter.derive.adapter_keys import Role, bare_key, foreign_key, foreign_key_of_any, parse_key
from converter.derive.module_paths import EMBEDDING, HEAD, normal_module
from converter.derive.peft_methods import PeftMethod, peft_method
from converter.derive.remembered import remembered
from converter.read.adapter_config import AdapterConfig
from converter.read.safetensors_header import SafetensorsHeader
from converter.read.stored import StoredTensor


class AdapterTensor(NamedTuple):
    """One tensor: its key, the module it belongs to (Hugging Face path without ``.weight``), its role.

    ``read_as`` is the key under which it is read, where the user said that it may be another than its own.
    """

    key: str
    module: str
    role: Role
    tensor: StoredTensor
    path: str  # the module's path as it was saved: what the config's patterns were written for
    copy_of: str | None = None  # of a copy: the key of the tensor that it repeats
    read_as: str | None = None

    @property
    def name(self) -> str:
        """The key as it is read."""
        return self.read_as or self.key


_UNKNOWN: Final[Role] = "unknown"


def tensors_of(
    headers: Iterable[SafetensorsHeader], config: AdapterConfig | None, name_of: Callable[[str], str] = str
) -> tuple[AdapterTensor, ...]:
    """Every tensor of the files, in their order, read under the name that ``name_of`` gives its key."""
    if config and config.mlx is not None:
        from converter.derive.mlx_keys import pefts_name as name_of
    tensors = tuple(
        _adapter_tensor(header, i, name_of, config) for header in headers for i in range(len(header.entries))
    )
    return _with_copies(_of_method(_with_parameters(tensors, config), config), config)


def _adapter_tensor(
    header: SafetensorsHeader, index: int, name_of: Callable[[str], str], config: AdapterConfig | None
) -> AdapterTensor:
    info = header.entries[index]
    name = name_of(info.name)
    is_of_mlx = config is not None and config.mlx is not None
    path, role, module, is_foreign = _parsed(name)
    if (is_foreign and foreign_key(name, config)) or (is_of_mlx and name == info.name):
        path, role, module = name, _UNKNOWN, name
    tensor = StoredTensor(header.path, header.data_offset + info.begin, info.end - info.begin, info.shape, info.dtype)
    if is_of_mlx and role in ("lora_A", "lora_B") and len(info.shape) == 2:
        tensor = tensor._replace(shape=info.shape[::-1], transposed=True)
    read_as = name if name != info.name else None
    return AdapterTensor(info.name, module, role, tensor, path, read_as=read_as)


@remembered
def _parsed(name: str) -> tuple[str, Role, str, bool]:
    """The path, the role and the module of a key, and whether it may be another tool's."""
    path, role = parse_key(name)
    return path, role, path if role == "unknown" else normal_module(path), foreign_key_of_any(name) is not None


# Parameters of fused experts, in the order in which transformers' modules define them and PEFT wraps them.
_EXPERT_PARAMETERS: Final = ("gate_up_proj", "up_proj", "down_proj")
_EXPERT_ENDS: Final = tuple(f".experts.{parameter}" for parameter in _EXPERT_PARAMETERS)


def is_expert_parameter(module: str) -> bool:
    """Whether a module's path is that of a parameter of all experts."""
    return module.endswith(_EXPERT_ENDS)


def is_parameters(factor: AdapterTensor) -> bool:
    """Whether a factor is of a LoRA on a module's weight (target_parameters), not on the module."""
    return factor.path.endswith(".weight")


def _with_parameters(tensors: tuple[AdapterTensor, ...], config: AdapterConfig | None) -> tuple[AdapterTensor, ...]:
    """Give the factors of fused experts the path of their parameter.

    PEFT wraps a module once for each parameter of target_parameters, in the order of their definition, and names the
    factors by the wrapper: ``experts.base_layer.lora_A`` is the first parameter's, ``experts.lora_A`` the last one's.
    """
    targets = config.target_parameters if config else ()
    depths = {tensor.path.partition(".base_layer")[0]: 0 for tensor in tensors if ".experts" in tensor.path}
    for tensor in tensors:
        if ".base_layer" in tensor.path and tensor.role in ("lora_A", "lora_B"):
            module = tensor.path.partition(".base_layer")[0]
            depths[module] = max(depths.get(module, 0), tensor.path.count(".base_layer"))
    return tuple(_with_parameter(tensor, targets, depths) for tensor in tensors) if targets else tensors


def _with_parameter(tensor: AdapterTensor, targets: tuple[str, ...], depths: Mapping[str, int]) -> AdapterTensor:
    module = tensor.path.partition(".base_layer")[0]
    if tensor.role not in ("lora_A", "lora_B"):
        return tensor
    if not module.endswith(".experts"):
        # A router's weight: PEFT matches patterns against the parameter's path.
        path = f"{tensor.path}.weight"
        return tensor._replace(path=path) if _is_targeted(path, targets) else tensor
    wrapped = [p for p in _EXPERT_PARAMETERS if _is_targeted(f"{module}.{p}", targets)]
    if len(wrapped) != depths[module] + 1:
        return _unknown(tensor)
    path = f"{module}.{wrapped[depths[module] - tensor.path.count('.base_layer')]}"
    return tensor._replace(module=normal_module(path), path=path)


def _is_targeted(path: str, targets: tuple[str, ...]) -> bool:
    return any(path == target or path.endswith(f".{target}") for target in targets)


def _of_method(tensors: tuple[AdapterTensor, ...], config: AdapterConfig | None) -> tuple[AdapterTensor, ...]:
    """Read the keys as those of the config's method, where that is not LoRA."""
    if config is None or config.is_lora:
        return tensors
    method = peft_method(config.peft_type)
    return tuple(
        _tensor_of_method(t, method) if method and not foreign_key(t.name, config) else _unknown(t) for t in tensors
    )


def _unknown(tensor: AdapterTensor) -> AdapterTensor:
    return tensor._replace(module=tensor.name, role="unknown")


def _tensor_of_method(tensor: AdapterTensor, method: PeftMethod) -> AdapterTensor:
    path = method.module_of(bare_key(tensor.name).removeprefix("base_model."))
    if path is None:
        is_plain = tensor.role in ("weight", "bias", "base_layer.weight", "base_layer.bias")
        return tensor if is_plain else _unknown(tensor)
    role: Role = "tuner" if path else "shared"
    if method.name == "LN_TUNING":
        role = "bias" if tensor.name.endswith(".bias") else "weight"
    elif method.name == "TRAINABLE_TOKENS":
        role = "trainable_tokens_delta"
    return tensor._replace(module=normal_module(path), path=path, role=role)


_MAY_BE_COPIES: Final[frozenset[Role]] = frozenset({"weight", "bias", "trainable_tokens_delta"})


def _with_copies(tensors: tuple[AdapterTensor, ...], config: AdapterConfig | None) -> tuple[AdapterTensor, ...]:
    """Mark what PEFT saves twice: a module of modules_to_save when the vocabulary was resized, a tied head's rows."""
    if _MAY_BE_COPIES.isdisjoint([tensor.role for tensor in tensors]):
        return tensors
    first = {(t.module, t.role): t.key for t in tensors if ".modules_to_save." not in t.name}
    one_list = config is not None and isinstance(config.trainable_token_indices, tuple)
    return tuple(_with_copy(tensor, first, one_list=one_list) for tensor in tensors)


def _with_copy(tensor: AdapterTensor, first: Mapping[tuple[str, Role], str], *, one_list: bool) -> AdapterTensor:
    module = tensor.module
    if tensor.role == "trainable_tokens_delta" and tensor.module == HEAD and one_list:
        module = EMBEDDING  # one list of tokens is the embedding's, and a tied head's with it
    elif tensor.role not in ("weight", "bias") or ".modules_to_save." not in tensor.name:
        return tensor
    original = first.get((module, tensor.role))
    return tensor._replace(role="copy", copy_of=original) if original else tensor
