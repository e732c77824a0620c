"""The two ends of a model, head and embedding, as the HD rules ask about them."""

from collections.abc import Iterator
from typing import Final

from converter.read.adapter import Adapter, AdapterTensor, LoraPair
from converter.read.module_paths import EMBEDDING, HEAD

ENDS: Final = (EMBEDDING, HEAD)


def lora_on(adapter: Adapter, module: str) -> Iterator[LoraPair]:
    """The LoRA pair of a module, if it has one."""
    return (pair for pair in adapter.pairs if pair.module == module)


def saved_weight(adapter: Adapter, module: str) -> Iterator[AdapterTensor]:
    """The weight of a module that modules_to_save names, if the adapter has one."""
    return (tensor for tensor in _weights(adapter, module) if _is_named(adapter, tensor))


def unnamed_weight(adapter: Adapter, module: str) -> Iterator[AdapterTensor]:
    """The weight of a module that is in the file though modules_to_save doesn't name it."""
    return (tensor for tensor in _weights(adapter, module) if not _is_named(adapter, tensor))


def _weights(adapter: Adapter, module: str) -> Iterator[AdapterTensor]:
    return (tensor for tensor in adapter.saved_modules if tensor.module == module and tensor.role == "weight")


def _is_named(adapter: Adapter, tensor: AdapterTensor) -> bool:
    """PEFT compares the ends of paths; with ensure_weight_tying, naming one end saves both."""
    config = adapter.config
    if config is None:
        return True
    paths = ENDS if config.ensure_weight_tying else (tensor.path,)
    return any(path.endswith(name) for path in paths for name in config.modules_to_save)
