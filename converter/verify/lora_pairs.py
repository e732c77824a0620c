"""The tensor proof of a LoRA GGUF: every pair's scale * B @ A against PEFT's delta in float64.

Scale, ranks and orientations as llama.cpp takes them: llama_adapter_lora_weight::get_scale in src/llama-adapter.h,
build_lora_mm and build_inp_embd in src/llama-graph.cpp.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path
from typing import Final

import numpy as np

from converter.architectures import Target
from converter.errors import ConverterError
from converter.read.base_model import BaseModel
from converter.read.gguf_header import read_gguf_header
from converter.read.module_paths import EMBEDDING
from converter.verify.gguf_weights import Weights, weights_in
from converter.verify.reference import Reference
from converter.verify.tensors import Progress, TensorCheck, TensorProof, fits, rows_of_huggingface

# Relative error of the whole delta: some units in the last place of the factors' type, since B @ A cancels in part.
_TOLERANCE: Final[Mapping[str, float]] = {"F32": 1e-6, "F16": 4e-3, "BF16": 3e-2, "Q8_0": 3e-2}


def prove_lora(lora: Path, base: BaseModel, reference: Reference, progress: Progress) -> TensorProof:
    """Compare every pair of the file with PEFT's deltas; what one of the two lacks is a fault."""
    header = read_gguf_header(lora)
    alpha = header.kv.get("adapter.lora.alpha")
    if not isinstance(alpha, float):
        raise ConverterError(f"{lora}: is no LoRA GGUF (adapter.lora.alpha is {alpha!r}, wanted a number)")
    stored = weights_in(header)
    checks: list[TensorCheck] = []
    for done, parameter in enumerate(sorted(reference.touched)):
        progress(done, len(reference.touched))
        checks.append(_check(parameter, stored, alpha, base, reference))
    return TensorProof((*checks, *_in_excess(stored, checks)))


def _check(
    parameter: str, stored: Mapping[str, Weights], alpha: float, base: BaseModel, reference: Reference
) -> TensorCheck:
    module, _, kind = parameter.rpartition(".")
    target = base.target(module)
    if target is None:
        raise ConverterError(f"{base.path}: {base.model_type} has no tensor for PEFT's {parameter}")
    tensor = f"{target.tensor}.{kind}"
    a, b = stored.get(f"{tensor}.lora_a"), stored.get(f"{tensor}.lora_b")
    if module not in reference.pairs:
        return TensorCheck(tensor, "nothing", fault=f"has no LoRA: {parameter} is saved whole, which none can carry")
    if a is None or b is None:
        return TensorCheck(tensor, "nothing", fault=f"lacks a factor of the delta of {parameter}, or both")
    return _compare(tensor, target, _Product(target, a, b, alpha), base, reference)


@dataclass(frozen=True, slots=True)
class _Product:
    """scale * B @ A as llama.cpp multiplies it."""

    target: Target
    a: Weights
    b: Weights
    alpha: float

    @property
    def left(self) -> Weights:
        """The factor whose rows are the product's: an embedding is looked up in A."""
        return self.a if self.target.module == EMBEDDING else self.b

    @property
    def right(self) -> np.ndarray:
        """The other factor, (r, n_columns)."""
        factor = self.b if self.target.module == EMBEDDING else self.a
        values = factor.values(slice(0, factor.n_rows))
        return values.T if self.target.module == EMBEDDING else values

    @property
    def scale(self) -> float:
        """The file's alpha over the rank that B states; alpha 0 means no scaling."""
        return self.alpha / self.b.tensor.shape[1] if self.alpha else 1.0

    @property
    def type_name(self) -> str:
        """The coarser type of the two factors."""
        return max(self.a.tensor.type.name, self.b.tensor.type.name, key=lambda name: _TOLERANCE.get(name, inf))


def _compare(tensor: str, target: Target, product: _Product, base: BaseModel, reference: Reference) -> TensorCheck:
    parameter, left, right = f"{target.module}.weight", product.left, product.right
    shape = (left.n_rows, right.shape[1])
    if left.tensor.shape[1] != right.shape[0] or not fits(shape, reference.shape(parameter), target):
        return TensorCheck(tensor, "nothing", fault=f"has shape {shape}, PEFT's {reference.shape(parameter)}")
    error2 = norm2 = held = 0.0
    for rows in left.blocks():
        found = product.scale * left.values(rows) @ right
        wanted = reference.delta(target.module, rows_of_huggingface(target, base.dims, left.n_rows, rows))
        error2 += float(((found - wanted) ** 2).sum())
        norm2 += float((wanted**2).sum())
        held += float((found * wanted).sum())
    return _judge(tensor, product.type_name, error2, norm2, held)


def _judge(tensor: str, type_name: str, error2: float, norm2: float, held: float) -> TensorCheck:
    if norm2 == 0:  # a delta of nothing, or not a number
        fault = "is not 0, as PEFT's delta is" if error2 else None
        return TensorCheck(tensor, "numbers", type_name, touched=True, fault=fault)
    relative = sqrt(error2 / norm2)
    error = relative / _TOLERANCE[type_name]
    fault = None if error <= 1 else f"differs from PEFT's delta by {relative:.3g} of its size"
    return TensorCheck(tensor, "numbers", type_name, True, error, held / norm2, fault)


def _in_excess(stored: Mapping[str, Weights], checks: Sequence[TensorCheck]) -> Iterator[TensorCheck]:
    wanted = {f"{check.tensor}.{factor}" for check in checks for factor in ("lora_a", "lora_b")}
    for name in stored:
        if name not in wanted:
            yield TensorCheck(name, "nothing", fault="is in excess; PEFT's adapter has no such delta")
