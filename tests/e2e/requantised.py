"""What llama-quantize makes of a GGUF: the types of its Q8_0, Q6_K and Q4_K_M files, by libgguf and without an imatrix.

Types as in llama_tensor_get_type (src/llama-quant.cpp): one-dimensional tensors, norms and routers stay F32; the head,
and in Q4_K_M some layers' attn_v and ffn_down, get Q6_K; rows that are no whole number of 256 fall back from Q4_K to
Q5_0 and from Q6_K to Q8_0. gemma3's embedding stays BF16 (--token-embedding-type bf16).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

quantize_rows = pytest.importorskip("libgguf", reason="needs libgguf (the extra quants)").quantize_rows


@dataclass(frozen=True, slots=True)
class _Model:
    architecture: str
    n_layers: int
    head: str  # the tensor that is the head


_FALLBACK = {GGMLQuantizationType.Q4_K: GGMLQuantizationType.Q5_0, GGMLQuantizationType.Q6_K: GGMLQuantizationType.Q8_0}


def requantised(source: Path, target: Path, file_type: str) -> Path:
    """Write ``source`` again with its matrices as ``file_type`` has them."""
    reader = GGUFReader(source)
    fields = reader.fields
    architecture = str(fields["general.architecture"].contents())
    writer = GGUFWriter(target, architecture)
    for key, field in fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            of = field.types[-1] if field.types[0] is GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=of)
    has_head = any(tensor.name == "output.weight" for tensor in reader.tensors)
    n_layers = int(fields[f"{architecture}.block_count"].contents())
    model = _Model(architecture, n_layers, "output.weight" if has_head else "token_embd.weight")
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        to = _type(tensor.name, values.shape, file_type, model)
        data = values if to is GGMLQuantizationType.F32 else _encoded(values, to)
        writer.add_tensor(tensor.name, data, raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _encoded(values: np.ndarray, to: GGMLQuantizationType) -> np.ndarray:
    if to is GGMLQuantizationType.BF16:
        import ml_dtypes

        return values.astype(ml_dtypes.bfloat16).view(np.uint8)
    if values.ndim == 2:
        return np.asarray(quantize_rows(values, to))
    return np.stack([np.asarray(quantize_rows(matrix, to)) for matrix in values])


def _type(name: str, shape: tuple[int, ...], file_type: str, model: _Model) -> GGMLQuantizationType:
    if len(shape) < 2 or name.endswith("ffn_gate_inp.weight"):
        return GGMLQuantizationType.F32
    if name == "token_embd.weight" and model.architecture == "gemma3":
        return GGMLQuantizationType.BF16
    wanted = _wanted(name, file_type, model)
    return _FALLBACK.get(wanted, wanted) if shape[-1] % 256 else wanted


def _wanted(name: str, file_type: str, model: _Model) -> GGMLQuantizationType:
    if file_type != "Q4_K_M":
        return GGMLQuantizationType[file_type]
    _, layer, kind, *_ = f"{name}..".split(".")
    more = kind in ("attn_v", "ffn_down") and _use_more_bits(int(layer), model.n_layers)
    return GGMLQuantizationType.Q6_K if name == model.head or more else GGMLQuantizationType.Q4_K


def _use_more_bits(layer: int, n_layers: int) -> bool:
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2
