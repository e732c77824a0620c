"""Conversions for tests that must not wait for torch: small bases with metadata to keep, and one call to convert."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants
from gguf.gguf_reader import ReaderTensor

from converter.conversion import Written, plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.planning.conversion_plan import ConversionPlan
from tests.rules.specimens import FFN, HEAD_DIM, HIDDEN, N_HEAD, N_HEAD_KV, N_LAYER, VOCAB, Specimen

MATRICES = {"attn_q": (N_HEAD * HEAD_DIM, HIDDEN), "attn_v": (N_HEAD_KV * HEAD_DIM, HIDDEN), "ffn_down": (HIDDEN, FFN)}
LORA, MODEL = Deployment("lora"), Deployment("model")
UNTIED_LORA, UNTIED_MODEL = Deployment("lora", untie=True), Deployment("model", untie=True)


def write_base(
    path: Path,
    *,
    architecture: str = "llama",
    outtype: str = "F32",
    alignment: int | None = None,
    tensors_per_file: int = 0,
) -> Path:
    """Write a tied base of random weights whose metadata hold a value of every kind; return its first file."""
    writer = GGUFWriter(path, architecture, split_max_tensors=tensors_per_file)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_key_length(HEAD_DIM)
    _add_odd_metadata(writer)
    for name, values in _weights():
        dtype = GGMLQuantizationType[outtype if values.ndim == 2 else "F32"]
        writer.add_tensor(name, quants.quantize(values, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return min(path.parent.glob(f"{path.stem}-*.gguf")) if tensors_per_file else path


def _add_odd_metadata(writer: GGUFWriter) -> None:
    """Metadata that a writer which decodes and encodes again would change."""
    writer.add_float32("odd.negative_zero", -0.0)
    writer.add_float64("odd.double", 0.1)
    writer.add_int16("odd.small", -7)
    writer.add_bool("odd.flag", val=True)
    writer.add_string("odd.text", "tab\t, line\n, Größe")
    writer.add_array("odd.tokens", ["<s>", "", "▁the"])
    writer.add_array("odd.scores", [0.5, -1.5])


def _weights() -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    random = np.random.default_rng(4)
    shapes = {"token_embd": (VOCAB, HIDDEN), "output_norm": (HIDDEN,)}
    for i in range(N_LAYER):
        shapes |= {f"blk.{i}.{name}": shape for name, shape in {"attn_norm": (HIDDEN,), **MATRICES}.items()}
    for name, shape in shapes.items():
        yield f"{name}.weight", random.standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was planned and written."""

    plan: ConversionPlan
    files: tuple[Written, ...]


def convert(specimen: Specimen, output: Path, deployment: Deployment = LORA) -> Conversion:
    """Write the specimen, and its conversion to `output`."""
    specimen.write()
    assert specimen.base
    adapter, base = read_adapter(specimen.directory), read_base_model(specimen.base)
    planned = plan(adapter, base, deployment)
    return Conversion(planned, write(planned, output))


def tensors_of(path: Path) -> dict[str, ReaderTensor]:
    """The tensors of a GGUF by gguf's reader."""
    return {tensor.name: tensor for tensor in GGUFReader(path).tensors}


def values_of(path: Path, name: str) -> npt.NDArray[np.float64]:
    """The numbers of one tensor by gguf's reader and quants."""
    tensor = tensors_of(path)[name]
    return quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)


def metadata_of(path: Path) -> dict[str, object]:
    """The metadata of a GGUF by gguf's reader, decoded; its own counts of tensors and entries left out."""
    fields = GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}


def entries_of(path: Path) -> dict[str, bytes]:
    """The metadata of a GGUF by gguf's reader, each entry as the bytes it is stored as."""
    fields = GGUFReader(path).fields
    return {
        key: b"".join(part.tobytes() for part in field.parts)
        for key, field in fields.items()
        if not key.startswith("GGUF.")
    }
