"""A planned model with the types that llama-quantize would give it, every matrix straight from its source.

The model is planned in F32 (a host's in F16) and every tensor's type is then chosen as llama.cpp chooses it; what it
leaves alone stays as it is. The bytes are those of its ``llama_model_quantize`` of that plan's file in F32.
"""

from collections.abc import Iterator
from typing import Final

from converter.diagnostics import Deployment, Quantize
from converter.digests import file_digest_of
from converter.dtypes import GGML_BY_NAME, GgmlType
from converter.errors import ConverterError
from converter.planning.conversion_plan import (
    CopiedKeyValue,
    EditedArray,
    NewArray,
    NewKeyValue,
    NewScalar,
    PlannedFile,
    PlannedKeyValue,
    PlannedTensor,
    Quantised,
    StoredNumbers,
)
from converter.planning.file_types import FILE_TYPES, TYPES
from converter.planning.mixtures import Matrix, Traits, Wanted, types_of
from converter.read.gguf_header import GgufArray, read_scalars
from converter.read.imatrix import Imatrix, Importance, read_imatrix
from converter.sources import CopiedBytes, Merged, Placed, Product, Source, Stacked, StoredRows, WideEmbedding


def refuse_unfit(deployment: Deployment) -> None:
    """Raise ConverterError where a deployment can't be quantised, or asks for types that there are not."""
    asked = deployment.quantize
    if asked is None:
        return
    if deployment.to == "lora" or deployment.outtype not in (None, "auto"):
        raise ConverterError(
            "--quantize is for a merged model, and chooses its types: leave --to lora and --outtype out"
        )
    if asked.file_type not in FILE_TYPES:
        raise ConverterError(f"--quantize {asked.file_type}: wanted one of {', '.join(FILE_TYPES)}")
    named = {asked.output_tensor_type, asked.token_embedding_type, *(name for _, name in asked.tensor_types)}
    for name in sorted(named - {None, *TYPES}, key=str):
        raise ConverterError(f"--quantize with {name}: wanted one of {', '.join(TYPES)}")


def quantised(file: PlannedFile, asked: Quantize) -> PlannedFile:
    """The file quantised. Raises ConverterError where a type doesn't fit, or the base is quantised already."""
    imatrix = read_imatrix(asked.imatrix) if asked.imatrix else None
    types = _types(file, asked)
    tensors = tuple(
        _quantised(tensor, types[tensor.name], asked, imatrix) if tensor.name in types else tensor
        for tensor in file.tensors
    )
    return file._replace(tensors=tensors, key_values=tuple(_key_values(file, asked, imatrix)))


def _types(file: PlannedFile, asked: Quantize) -> dict[str, GgmlType]:
    embedding = asked.token_embedding_type
    if _host(file) == "gemma3" and embedding not in ("F32", "BF16"):
        if embedding:
            raise ConverterError(
                f"--token-embedding-type {embedding}: hosted as gemma3 the embedding needs the exponents of BF16 or "
                "F32; leave it out"
            )
        embedding = "BF16"
    wanted = Wanted(asked.file_type, asked.tensor_types, asked.output_tensor_type, embedding, bool(asked.imatrix))
    return types_of((Matrix(t.name, t.shape) for t in file.tensors), _traits(file), wanted)


def _quantised(tensor: PlannedTensor, to: GgmlType, asked: Quantize, imatrix: Imatrix | None) -> PlannedTensor:
    if not to.fits(tensor.shape[-1]):
        raise ConverterError(f"{tensor.name}: rows of {tensor.shape[-1]} elements don't fit {to.name}; ask for another")
    if isinstance(tensor.source, CopiedBytes) and tensor.type == to:
        return tensor
    if not asked.allow_requantize:
        _refuse_second_time(tensor, to)
    importance = _importance(tensor, imatrix) if imatrix else None
    return tensor._replace(type=to, source=_as_rows(tensor.source), quantised=Quantised(importance))


def _refuse_second_time(tensor: PlannedTensor, to: GgmlType) -> None:
    for stored in _types_in_base(tensor.source):
        if stored in GGML_BY_NAME and not GGML_BY_NAME[stored].is_float and stored != to.name:
            raise ConverterError(
                f"{tensor.name} is {stored} in the base, and would be quantised a second time, to {to.name}: give the "
                "base in F16, BF16 or F32, or accept what that loses with --allow-requantize"
            )


def _as_rows(source: Source) -> Source:
    """What is copied byte for byte, as numbers."""
    if not isinstance(source, CopiedBytes):
        return source
    key, stored = source
    if len(stored.shape) < 3:
        return StoredRows(key, stored)
    return Stacked(tuple(StoredRows(key, stored.slab(i)) for i in range(stored.shape[0])))


def _types_in_base(source: Source | Product) -> Iterator[str]:
    match source:
        case CopiedBytes(_, stored) | StoredRows(_, stored):
            yield stored.dtype
        case Merged(base=base):
            yield from _types_in_base(base)
        case WideEmbedding(embedding=embedding):
            yield from _types_in_base(embedding)
        case Stacked(parts):
            yield from {name for part in parts for name in _types_in_base(part)}
        case Placed(pieces=pieces):
            yield from {name for piece in pieces for name in _types_in_base(piece.matrix)}
        case Product(matrix=matrix):
            yield from _types_in_base(matrix)
        case _:
            return


def _importance(tensor: PlannedTensor, imatrix: Imatrix) -> Importance | None:
    """The tensor's entry; None where there is none, or it is an embedding's of another size, as in llama.cpp."""
    entry, n_matrices = imatrix.entries.get(tensor.name), tensor.shape[0] if len(tensor.shape) > 2 else 1
    if entry is None or entry.columns[1] == n_matrices * tensor.shape[-1]:
        return entry
    if tensor.name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return None
    raise ConverterError(
        f"{imatrix.path}: {tensor.name}: {entry.columns[1]} values, wanted {n_matrices * tensor.shape[-1]}; it is of "
        "another model, or of one before it was laid out for a host"
    )


def imatrix_notes(file: PlannedFile) -> Iterator[str]:
    """What whoever gave an imatrix has to know."""
    n_without = sum(1 for tensor in file.tensors if tensor.quantised and not tensor.quantised.importance)
    if n_without:
        yield f"the imatrix says nothing of {n_without} of the matrices: they were quantised without one"


# --- Metadata ---------------------------------------------------------------------------------------------------------

_VERSION: Final = 2  # GGML_QNT_VERSION of ggml.h


def _key_values(file: PlannedFile, asked: Quantize, imatrix: Imatrix | None) -> Iterator[PlannedKeyValue]:
    """What llama-quantize writes; of the imatrix the file's name alone, and its digest beside."""
    new: dict[str, str | int] = {
        "general.quantization_version": _VERSION,
        "general.file_type": FILE_TYPES[asked.file_type].id,
        **(dict(_of_imatrix(imatrix)) if imatrix else {}),
    }
    yield from (entry for entry in file.key_values if entry.key not in new)
    yield from (NewKeyValue(key, value) for key, value in new.items())


def _of_imatrix(imatrix: Imatrix) -> Iterator[tuple[str, str | int]]:
    yield "quantize.imatrix.file", imatrix.path.name
    if imatrix.dataset:
        yield "quantize.imatrix.dataset", imatrix.dataset
    yield "quantize.imatrix.entries_count", len(imatrix.entries)
    if imatrix.n_chunks > 0:
        yield "quantize.imatrix.chunks_count", imatrix.n_chunks
    yield "adapter_to_gguf.imatrix.sha256", file_digest_of(imatrix.path)


# --- What a mixture asks of the model ---------------------------------------------------------------------------------


def _host(file: PlannedFile) -> object:
    return next((_first_value(entry) for entry in file.key_values if entry.key == "adapter_to_gguf.host"), None)


def _traits(file: PlannedFile) -> Traits:
    entries = {entry.key: entry for entry in file.key_values}
    architecture = str(_first_value(entries["general.architecture"]))

    def number(key: str, otherwise: int) -> int:
        entry = entries.get(f"{architecture}.{key}")
        found = _first_value(entry) if entry else otherwise
        return found if isinstance(found, int) else otherwise

    n_head = number("attention.head_count", 0)
    n_head_kv = number("attention.head_count_kv", n_head)
    return Traits(architecture, number("block_count", 0), n_head, n_head_kv, number("expert_count", 0))


def _first_value(entry: PlannedKeyValue) -> object:
    """An entry's value; of an array of numbers the first, which is of the first layer."""
    match entry:
        case CopiedKeyValue(path, copied):
            if isinstance(copied.value, GgufArray):
                return next(iter(read_scalars(path, copied.value)), None)
            return copied.value
        case NewKeyValue(_, value) | NewArray(_, _, value) | NewScalar(_, _, value):
            return value[0] if isinstance(value, tuple) else value
        case EditedArray() | StoredNumbers():
            return None
