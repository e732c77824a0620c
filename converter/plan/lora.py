"""Plans a LoRA GGUF: factors as llama.cpp's loader wants them (src/llama-adapter.cpp), nothing merged."""

import re
import struct
from collections.abc import Iterator
from typing import Final

from converter.dtypes import F32, GgmlType
from converter.errors import ConverterError
from converter.plan.conversion_plan import NewKeyValue, PlannedFile, PlannedTensor, Source, StoredColumns, StoredRows
from converter.plan.outtypes import factor_type
from converter.read.adapter import Adapter, LoraPair
from converter.read.base_model import BaseModel
from converter.transforms import order_of


def plan_lora(adapter: Adapter, base: BaseModel, outtype: str | None, name: str = "") -> PlannedFile:
    """Plan the LoRA GGUF of a judged adapter. Raises ConverterError where ``outtype`` can't hold factors."""
    alpha = common_alpha(adapter)
    tensors = [tensor for pair in adapter.pairs for tensor in _planned_pair(pair, base, alpha, outtype)]
    return PlannedFile(tuple(tensors), tuple(_key_values(adapter, base, 1.0 if alpha is None else alpha)), name=name)


def common_alpha(adapter: Adapter) -> float | None:
    """The one alpha that gives every pair its scale as alpha / rank, or None where there is none or it is 0.

    llama.cpp scales by alpha / rank with one float32 alpha a file, and takes 0 for "no scaling" (get_scale in
    src/llama-adapter.h).
    """
    alphas = {_as_float32(pair.scaling * pair.rank) for pair in adapter.pairs}
    alpha = alphas.pop() if len(alphas) == 1 else 0.0
    return alpha or None


_NORMAL_FLOAT32: Final = (2.0**-126, 2.0**128 - 2.0**104)


def _as_float32(alpha: float) -> float:
    """The nearest float32; 0 where none has its full precision."""
    smallest, largest = _NORMAL_FLOAT32
    if not smallest <= abs(alpha) <= largest:
        return 0.0
    nearest: float = struct.unpack("<f", struct.pack("<f", alpha))[0]
    return nearest


def _planned_pair(pair: LoraPair, base: BaseModel, alpha: float | None, outtype: str | None) -> Iterator[PlannedTensor]:
    target = base.target(pair.module)
    if target is None:
        raise ConverterError(f"{pair.module}: not a module of {base.path}")
    # Without a common alpha the file says 1, and lora_b carries scaling * rank: llama.cpp divides by rank again.
    scale = 1.0 if alpha is not None else pair.scaling * pair.rank
    a, b = pair.a.tensor, pair.b.tensor
    b_type = F32 if scale != 1.0 else factor_type(outtype, b.dtype)
    name = f"{target.tensor}.weight"
    if pair.is_embedding:
        yield _planned(f"{name}.lora_a", StoredColumns(pair.a.key, a), a.shape[::-1], factor_type(outtype, a.dtype))
        yield _planned(f"{name}.lora_b", StoredRows(pair.b.key, b, scale=scale), b.shape, b_type)
    else:
        order = order_of(target, base.dims)
        yield _planned(f"{name}.lora_a", StoredRows(pair.a.key, a), a.shape, factor_type(outtype, a.dtype))
        yield _planned(f"{name}.lora_b", StoredRows(pair.b.key, b, order, scale), b.shape, b_type)


def _planned(name: str, source: Source, shape: tuple[int, ...], ggml_type: GgmlType) -> PlannedTensor:
    return PlannedTensor(name, shape, ggml_type, source)


def _key_values(adapter: Adapter, base: BaseModel, alpha: float) -> Iterator[NewKeyValue]:
    yield NewKeyValue("general.architecture", _architecture(base))
    yield NewKeyValue("general.type", "adapter")
    yield NewKeyValue("adapter.type", "lora")
    yield NewKeyValue("adapter.lora.alpha", float(alpha))
    yield from _base_names(adapter)


def _architecture(base: BaseModel) -> str:
    if base.architecture is None:
        raise ConverterError(f"{base.path}: model_type {base.model_type!r} is not supported")
    return base.architecture.name


_HUB_NAME: Final = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def _base_names(adapter: Adapter) -> Iterator[NewKeyValue]:
    """The base's hub name, where the config has one; a local path says nothing to others."""
    name = (adapter.config.base_model_name_or_path if adapter.config else None) or ""
    if _HUB_NAME.fullmatch(name):
        organization, _, model = name.partition("/")
        yield NewKeyValue("general.base_model.count", 1)
        yield NewKeyValue("general.base_model.0.name", model)
        yield NewKeyValue("general.base_model.0.organization", organization)
        yield NewKeyValue("general.base_model.0.repo_url", f"https://huggingface.co/{name}")
