"""The base in transformers with its weights left in their files, whatever its size: see `stored_weights`.

Names, joined experts and a GGUF's reversed orders are transformers' own work (transformers/core_model_loading.py and
transformers/modeling_gguf_pytorch_utils.py, 5.23), so that the reference knows nothing of conversion's tables.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from converter.errors import ConverterError
from converter.read.gguf_header import read_gguf_header
from converter.transformers_base import from_weights, load_config, shell
from converter.verification.gguf_weights import Weights, weights_in
from converter.verification.stored_weights import Storage, StoredWeight

_WHOLE: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"


def streamed_base(path: Path) -> PreTrainedModel:
    """The base at ``path``, a Hugging Face directory or a GGUF file, in float32 as the reference needs it.

    Raises ConverterError where it can't be had.
    """
    config = load_config(path)
    weights = dict(_of_gguf(path, config) if path.is_file() else _of_directory(path))
    return from_weights(path, config, weights).requires_grad_(requires_grad=False)


def _of_directory(directory: Path) -> Iterator[tuple[str, StoredWeight]]:
    for path in _files(directory):
        try:
            with safe_open(path, framework="pt") as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  no mapping
                empty = {key: torch.empty(0, dtype=_dtype(path, key, part.get_dtype())) for key, part in slices.items()}
                shapes = {key: torch.Size(part.get_shape()) for key, part in slices.items()}
        except (OSError, SafetensorError) as error:
            raise ConverterError(f"{path}: transformers can't load this base: {error}") from error
        for key, shape in shapes.items():
            yield key, StoredWeight(Storage(shape, empty[key].dtype, _reader(path, key)))


_DTYPES: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _dtype(path: Path, key: str, name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise ConverterError(f"{path}: {key} is {name}, wanted one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _reader(path: Path, key: str) -> Any:
    def read() -> torch.Tensor:
        with safe_open(path, framework="pt", backend="pread") as file:  # copied, not mapped: mapped pages stay
            values: torch.Tensor = file.get_tensor(key)
        return values

    return read


def _files(directory: Path) -> tuple[Path, ...]:
    """The files that transformers takes: one, or those that the index names."""
    if (directory / _WHOLE).exists():
        return (directory / _WHOLE,)
    try:
        index = json.loads((directory / _INDEX).read_text(encoding="utf-8"))
        return tuple(directory / name for name in sorted(set(index["weight_map"].values())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConverterError(
            f"{directory}: transformers can't load this base: wanted {_WHOLE} or {_INDEX} ({error})"
        ) from error


def _of_gguf(path: Path, config: PretrainedConfig) -> Iterator[tuple[str, StoredWeight]]:
    header, model = read_gguf_header(path), shell(config)
    processor = TENSOR_PROCESSORS.get(str(header.kv.get("general.architecture")), TensorProcessor)(config.to_dict())
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
