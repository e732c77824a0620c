"""The base in transformers with its weights left in their files, whatever its size: see `stored_weights`.

Names, joined experts and a GGUF's reversed orders are transformers' own work (transformers/core_model_loading.py and
transformers/modeling_gguf_pytorch_utils.py, 5.23), so that the reference knows nothing of conversion's tables.
"""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from converter.errors import ConverterError
from converter.read.base_files import GgufFiles, read_base_files
from converter.read.safetensors_header import SafetensorsHeader, TensorInfo
from converter.transformers_base import from_weights, load_config, shell
from converter.verification.gguf_weights import Weights, weights_in
from converter.verification.stored_weights import Storage, StoredWeight

_FLOATS: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Values at a time on their way to float32.
_BLOCK_VALUES: Final = 1 << 22


def streamed_base(path: Path) -> PreTrainedModel:
    """The base at ``path``, a Hugging Face directory or a GGUF file, in float32 as the reference needs it.

    Raises ConverterError where it can't be had.
    """
    config, files = load_config(path), read_base_files(path)
    if isinstance(files, GgufFiles):
        weights = dict(_of_gguf(files, config))
    else:
        weights = {name: weight for header in files.headers for name, weight in _of_safetensors(header)}
    return from_weights(path, config, weights).requires_grad_(requires_grad=False)


def _of_safetensors(header: SafetensorsHeader) -> Iterator[tuple[str, StoredWeight]]:
    try:
        with safe_open(header.path, framework="pt"):  # safetensors' own judgement of the file
            pass
    except (OSError, SafetensorError) as error:
        raise ConverterError(f"{header.path}: safetensors can't load this base: {error}") from error
    for tensor in header.entries:
        if tensor.dtype not in _FLOATS:
            wanted = ", ".join(_FLOATS)
            raise ConverterError(f"{header.path}: {tensor.name} is {tensor.dtype}, wanted one of {wanted}")
        yield tensor.name, StoredWeight(Storage(torch.Size(tensor.shape), torch.float32, _reader(header, tensor)))


def _reader(header: SafetensorsHeader, tensor: TensorInfo) -> Callable[[], torch.Tensor]:
    dtype, n_values = _FLOATS[tensor.dtype], prod(tensor.shape)

    def read() -> torch.Tensor:
        values, offset = torch.empty(n_values), header.data_offset + tensor.begin
        # Read, not mapped: pages that were mapped once count as this program's as long as there is room.
        for begin in range(0, n_values, _BLOCK_VALUES):
            n = min(_BLOCK_VALUES, n_values - begin) * dtype.itemsize
            stored = np.fromfile(header.path, np.uint8, n, offset=offset + begin * dtype.itemsize)
            values[begin : begin + _BLOCK_VALUES] = torch.from_numpy(stored).view(dtype)
        return values.reshape(tensor.shape)

    return read


def _of_gguf(files: GgufFiles, config: PretrainedConfig) -> Iterator[tuple[str, StoredWeight]]:
    model, header = shell(config), files.shards[0]
    processor_class: Any = TENSOR_PROCESSORS.get(str(header.kv.get("general.architecture")), TensorProcessor)
    processor = processor_class(config.to_dict())
    names: Mapping[str, str] = get_gguf_hf_weights_map(model, processor)
    sources: dict[str, list[Weights]] = {}
    for name, weights in ((name, found) for shard in files.shards for name, found in weights_in(shard).items()):
        target = names.get(name) or names.get(name.removesuffix(".weight"))  # fused experts have no .weight
        if target:
            sources.setdefault(target, []).append(weights)
    shapes = {name: values.shape for name, values in model.state_dict().items()}
    for name, parts in sources.items():
        read = _dequantised(name, parts, processor, names)
        yield name, StoredWeight(Storage(shapes[name], torch.float32, read))


def _dequantised(name: str, parts: list[Weights], processor: Any, names: Mapping[str, str]) -> Any:
    """What transformers makes of the tensors behind one parameter; gate and up of experts are two."""

    def read() -> torch.Tensor:
        parsed: dict[str, dict[str, torch.Tensor]] = {"tensors": {}}
        for part in parts:
            result = processor.process(
                weights=_float32(part), name=part.tensor.name, tensor_key_mapping=names, parsed_parameters=parsed
            )
            if result.name in names:
                parsed["tensors"][name] = torch.from_numpy(np.ascontiguousarray(result.weights))
        return parsed["tensors"][name]

    return read


def _float32(weights: Weights) -> np.ndarray:
    values: np.ndarray = np.empty((weights.n_rows, *weights.tensor.shape[1:][-1:]), np.float32)
    for rows in weights.blocks():
        values[rows] = weights.float32(rows)
    return values.reshape(weights.tensor.shape)
