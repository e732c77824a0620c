"""The two ends of a model, head and embedding, as the HD rules ask about them."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from converter.derive.adapter import Adapter, LoraPair
from converter.derive.adapter_tensors import AdapterTensor
from converter.derive.module_paths import EMBEDDING, HEAD

ENDS: Final = (EMBEDDING, HEAD)


def lora_on(adapter: Adapter, module: str) -> Iterator[LoraPair]:
    """The LoRA pair of a module, if it has one."""
    return (pair for pair in adapter.pairs if pair.module == module)


def saved_weight(adapter: Adapter, module: str) -> Iterator[AdapterTensor]:
    """The weight of a module, if a changed one is saved; or a tensor of a method that gives it a whole new one."""
    saved = (t for t in adapter.tensors if t.module == module and t.role in ("weight", "tuner"))
    found = (tensor for tensor in saved if tensor.key not in adapter.unchanged)
    return islice(found, 1)
