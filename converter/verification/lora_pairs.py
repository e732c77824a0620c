"""The tensor proof of a LoRA GGUF: every pair's scale * B @ A against PEFT's delta in float64.

Scale, ranks and orientations as llama.cpp takes them: llama_adapter_lora_weight::get_scale in src/llama-adapter.h,
build_lora_mm and build_inp_embd in src/llama-graph.cpp.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

import numpy as np

from converter.architectures import Place
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING
from converter.errors import ConverterError
from converter.read.gguf_header import GgufArray, GgufHeader, read_gguf_header, read_scalars
from converter.verification.factors import factors_of
from converter.verification.gguf_weights import Weights, weights_in
from converter.verification.orders import columns_of_huggingface, rows_of_huggingface
from converter.verification.reference import Reference
from converter.verification.sums import ProductSums
from converter.verification.tensor_proof import TensorCheck, TensorProof
from converter.verification.tensors import Progress, fits

# Relative error of the whole delta: some units in the last place of the factors' type, since B @ A cancels in part.
DELTA_TOLERANCE: Final[Mapping[str, float]] = {"F32": 1e-6, "F16": 4e-3, "BF16": 3e-2, "Q8_0": 3e-2}
_INVOCATION: Final = "adapter.alora.invocation_tokens"


def prove_lora(lora: Path, base: BaseModel, reference: Reference, progress: Progress) -> TensorProof:
    """Compare every pair of the file with PEFT's deltas; what one of the two lacks is a fault."""
    header = read_gguf_header(lora)
    alpha = stated_alpha(header)
    stored = _by_parts(weights_in(header), base)
    if reference.layers:
        fault = "is the base's, and PEFT's adapter replicates layers, which no LoRA can"
        return TensorProof((TensorCheck("block_count", "nothing", fault=fault),))
    checks = [*_check_invocation(header, reference)]
    for done, parameter in enumerate(sorted(reference.touched)):
        progress(done, len(reference.touched))
        checks += _check(parameter, stored, alpha, base, reference)
    return TensorProof((*checks, *_in_excess(stored, checks)))


def _by_parts(stored: Mapping[str, Weights], base: BaseModel) -> Mapping[str, Weights]:
    """The factors under the names of the base's parts: of a fused tensor's lora_B each part has its own rows.

    Rows of zeros are no LoRA on the part.
    """
    result = dict(stored)
    for name, parts in base.fused.items():
        a, b = result.get(f"{name}.lora_a"), result.get(f"{name}.lora_b")
        if a is None or b is None or b.n_rows != sum(part.n_rows for part in parts):
            continue
        del result[f"{name}.lora_a"], result[f"{name}.lora_b"]
        begin = 0
        for part in parts:
            own = b.some_rows(slice(begin, begin + part.n_rows))
            begin += part.n_rows
            if any(own.float32(rows).any() for rows in own.blocks()):
                result |= {f"{part.tensor}.lora_a": a, f"{part.tensor}.lora_b": own}
    return result


def stated_alpha(header: GgufHeader) -> float:
    """The alpha of a LoRA GGUF. Raises ConverterError for a file that is none."""
    alpha = header.kv.get("adapter.lora.alpha")
    if not isinstance(alpha, float):
        raise ConverterError(f"{header.path}: is no LoRA GGUF (adapter.lora.alpha is {alpha!r}, wanted a number)")
    return alpha


def coarser_type(a: Weights, b: Weights) -> str:
    """The type of two factors that their product is judged by."""
    return max(a.tensor.type.name, b.tensor.type.name, key=lambda name: DELTA_TOLERANCE.get(name, inf))


def _check_invocation(header: GgufHeader, reference: Reference) -> Iterator[TensorCheck]:
    # llama-server looks for them in the prompt, and keeps the LoRA off before.
    array = header.kv.get(_INVOCATION)
    found = read_scalars(header.path, array) if isinstance(array, GgufArray) else ()
    if found != reference.invocation_tokens:
        fault = f"is {list(found)}, PEFT's {list(reference.invocation_tokens)}"
        yield TensorCheck(_INVOCATION, "nothing", fault=fault)


def _check(
    parameter: str, stored: Mapping[str, Weights], alpha: float, base: BaseModel, reference: Reference
) -> Iterator[TensorCheck]:
    module, _, leaf = parameter.rpartition(".")
    places = base.places(module)
    if not places:
        raise ConverterError(f"{base.path}: {base.model_type} has no tensor for PEFT's {parameter}")
    if module not in reference.pairs and reference.is_as_in_base(parameter):
        return  # saved whole with the base's own numbers: there is nothing to carry
    for place in places:
        tensor = place.name(leaf)
        a, b = stored.get(f"{tensor}.lora_a"), stored.get(f"{tensor}.lora_b")
        if module not in reference.pairs or leaf == "bias":
            yield TensorCheck(tensor, "nothing", fault=f"has no LoRA: {parameter} changes in a way that none can carry")
        elif a is None or b is None:
            yield TensorCheck(tensor, "nothing", fault=f"lacks a factor of the delta of {parameter}, or both")
        else:
            yield _compare(tensor, place, _Product(place, a, b, alpha), base, reference)


@dataclass(frozen=True, slots=True)
class _Product:
    """scale * B @ A as llama.cpp multiplies it; of experts one below the other (build_lora_mm_id)."""

    place: Place
    a: Weights
    b: Weights
    alpha: float

    @property
    def left(self) -> Weights:
        """The factor whose rows are the product's: an embedding is looked up in A."""
        return self.a if self.place.module == EMBEDDING else self.b

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The product's shape; None where the factors have none."""
        a, b = self.a.tensor.shape, self.b.tensor.shape
        if self.place.module == EMBEDDING:
            return (a[0], b[0]) if len(a) == len(b) == 2 and a[1] == b[1] else None
        fits_together = len(a) == len(b) > 1 and a[:-2] == b[:-2] and a[-2] == b[-1]
        return (*b[:-1], a[-1]) if fits_together else None

    def values(self, rows: slice) -> np.ndarray:
        """Some rows of it, in float64."""
        if self.place.module == EMBEDDING:
            return np.asarray(self.scale * self.a.values(rows) @ self.b.values(slice(0, self.b.n_rows)).T)
        rank, n_out = self.a.tensor.shape[-2], self.b.tensor.shape[-2]
        left, expert = self.b.values(rows), np.arange(rows.start, rows.stop) // n_out
        parts = [
            left[expert == e] @ self.a.values(slice(e * rank, (e + 1) * rank)) for e in range(expert[0], expert[-1] + 1)
        ]
        return np.asarray(self.scale * np.concatenate(parts))

    @property
    def scale(self) -> float:
        """The file's alpha over the rank that B states; alpha 0 means no scaling."""
        return self.alpha / self.b.tensor.shape[-1] if self.alpha else 1.0

    @property
    def type_name(self) -> str:
        """The coarser type of the two factors."""
        return coarser_type(self.a, self.b)


def _compare(tensor: str, place: Place, product: _Product, base: BaseModel, reference: Reference) -> TensorCheck:
    shape, wanted_shape = product.shape, reference.shape(f"{place.module}.weight")
    dims = base.dims_of(place.module)
    if shape is None or not fits(shape, wanted_shape, place, dims, reference.n_rows_needed):
        factors = f"factors of shape {product.a.tensor.shape} and {product.b.tensor.shape}"
        return TensorCheck(tensor, "nothing", fault=f"has {factors}, PEFT's delta has {wanted_shape}")
    sums, multiplied = ProductSums(), factors_of(place, dims, reference)
    for rows in product.left.blocks():
        wanted = reference.delta(place.module, rows_of_huggingface(place, dims, shape, rows))
        wanted = wanted[:, columns_of_huggingface(place, dims)]
        sums.add(product.values(rows), wanted if multiplied is None else multiplied.times(wanted, rows))
    return sums.judged(tensor, product.type_name, DELTA_TOLERANCE)


def _in_excess(stored: Mapping[str, Weights], checks: Sequence[TensorCheck]) -> Iterator[TensorCheck]:
    wanted = {f"{check.tensor}.{factor}" for check in checks for factor in ("lora_a", "lora_b")}
    for name in stored:
        if name not in wanted:
            yield TensorCheck(name, "nothing", fault="is in excess; PEFT's adapter has no such delta")
