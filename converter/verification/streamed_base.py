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
from converter.read.checkpoint import UnreadableIndex, read_index
from converter.read.gguf_header import read_gguf_header
from converter.read.safetensors_header import SafetensorsHeader, TensorInfo, read_safetensors_header
from converter.transformers_base import from_weights, load_config, shell
from converter.verification.gguf_weights import Weights, weights_in
from converter.verification.stored_weights import Storage, StoredWeight

_WHOLE: Final = "model.safetensors"
_FLOATS: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Values at a time on their way to float32.
_BLOCK_VALUES: Final = 1 << 22


def streamed_base(path: Path) -> PreTrainedModel:
    """The base at ``path``, a Hugging Face directory or a GGUF file, in float32 as the reference needs it.

    Raises ConverterError where it can't be had.
    """
    config = load_config(path)
    weights = dict(_of_gguf(path, config) if path.is_file() else _of_directory(path, config))
    return from_weights(path, config, weights).requires_grad_(requires_grad=False)


def _of_directory(directory: Path, config: PretrainedConfig) -> Iterator[tuple[str, StoredWeight]]:
    for path in _files(directory, config):
        try:
            with safe_open(path, framework="pt"):  # safetensors' own judgement of the header
                header = read_safetensors_header(path)
        except (OSError, SafetensorError) as error:
            raise ConverterError(f"{path}: transformers can't load this base: {error}") from error
        for tensor in header.entries:
            if tensor.dtype not in _FLOATS:
                raise ConverterError(f"{path}: {tensor.name} is {tensor.dtype}, wanted one of {', '.join(_FLOATS)}")
            read = _reader(header, tensor)
            yield tensor.name, StoredWeight(Storage(torch.Size(tensor.shape), torch.float32, read))


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


def _files(directory: Path, config: PretrainedConfig) -> tuple[Path, ...]:
    """The files that transformers takes: one, or those that the index names."""
    whole = getattr(config, "transformers_weights", None) or _WHOLE
    index = directory / (whole if whole.endswith(".json") else f"{whole}.index.json")
    if index.name != whole and (directory / whole).exists():
        return (directory / whole,)
    try:
        return tuple(directory / name for name in sorted(set(read_index(index).values())))
    except (OSError, UnreadableIndex) as error:
        raise ConverterError(
            f"{directory}: transformers can't load this base: wanted {whole} or {index.name} ({error})"
        ) from error


def _of_gguf(path: Path, config: PretrainedConfig) -> Iterator[tuple[str, StoredWeight]]:
    header, model = read_gguf_header(path), shell(config)
    kind: Any = TENSOR_PROCESSORS.get(str(header.kv.get("general.architecture")), TensorProcessor)
    processor = kind(config.to_dict())
    names: Mapping[str, str] = get_gguf_hf_weights_map(model, processor)
    sources: dict[str, list[Weights]] = {}
    for name, weights in weights_in(header).items():
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
