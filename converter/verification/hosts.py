"""The tensor proof of a hosted model: an untied Gemma in a graph of llama.cpp that has another layout.

What each tensor of the host must hold is put together here from PEFT's weights, densely and in float64, by formulas of
their own: a layout that conversion shared would prove its own mistake. The mathematics is told in the modules of
converter/planning/rehost. All of a tensor is compared, the zeros between and behind Gemma's weights too.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from converter.derive.base_model import BaseModel
from converter.errors import ConverterError
from converter.read.gguf_header import read_gguf_header
from converter.verification.gguf_weights import Weights, weights_in, weights_of
from converter.verification.host_layouts import HOSTS
from converter.verification.host_wants import HOST_KEY, HostedGemma, Want, whole
from converter.verification.host_wide import wide_relations
from converter.verification.lora_pairs import DELTA_TOLERANCE, coarser_type, stated_alpha
from converter.verification.reference import Reference
from converter.verification.sums import ProductSums, RoundedSums
from converter.verification.tensor_proof import TensorCheck, TensorProof
from converter.verification.tensors import Progress

# Vectors are rounded twice, once in the base and once scaled.
_VECTOR_ROUNDINGS: Final = 4.0


def is_hosted(model: BaseModel) -> bool:
    """Whether a GGUF says that it hosts another architecture."""
    return bool(model.shards) and HOST_KEY in model.shards[0].kv


def prove_hosted(deployed: BaseModel, base: BaseModel | None, reference: Reference, progress: Progress) -> TensorProof:
    """Compare every tensor of a hosted model with what PEFT's weights make of it.

    Raises ConverterError for a host that is not known here.
    """
    original = weights_of(base) if base else {}
    gemma = HostedGemma(deployed, reference, weights_of(deployed))
    wanted, checks = _wanted(gemma), []
    for done, (name, want) in enumerate(wanted.items()):
        progress(done, len(wanted))
        checks.append(_check(name, want, gemma, original))
    checks += wide_relations(gemma) if gemma.host == "wide" else ()
    checks += [TensorCheck(name, "nothing", fault=_EXCESS) for name in gemma.stored if name not in wanted]
    checks += [TensorCheck(name, "nothing", fault="has no tensor in the host") for name in _unserved(wanted, gemma)]
    return TensorProof(tuple(checks))


def prove_hosted_lora(lora: Path, model: BaseModel, reference: Reference, progress: Progress) -> TensorProof:
    """Compare the deltas of a LoRA for a hosted, untied base with PEFT's, and that base with PEFT's base.

    Raises ConverterError for a file that is no LoRA, and for a host that takes none.
    """
    header = read_gguf_header(lora)
    alpha = stated_alpha(header)
    gemma, factors = HostedGemma(model, reference, weights_of(model)), weights_in(header)
    checks = []
    wanted = _wanted(gemma)
    for done, (name, want) in enumerate(wanted.items()):
        progress(done, len(wanted))
        checks.append(_check(name, Want(partial(_without_adapter, want)), gemma, {}))
        if not reference.touched.isdisjoint(want.parameters):
            checks.append(_compare_delta(name, want, factors, alpha))
    pairs = {f"{name}.{factor}" for name in wanted for factor in ("lora_a", "lora_b")}
    checks += [TensorCheck(name, "nothing", fault=_EXCESS) for name in factors if name not in pairs]
    return TensorProof(tuple(checks))


_EXCESS: Final = "is in excess; the host has no such tensor"


def _wanted(gemma: HostedGemma) -> Mapping[str, Want]:
    if gemma.host not in HOSTS:
        raise ConverterError(f"{gemma.model.path}: hosted as {gemma.host!r}, which is not known here")
    return dict(HOSTS[gemma.host](gemma))


def _without_adapter(want: Want, rows: slice, _served: bool) -> np.ndarray:  # noqa: FBT001  as Expected has it
    return want.rows(rows, False)


def _compare_delta(name: str, want: Want, factors: Mapping[str, Weights], alpha: float) -> TensorCheck:
    """The product of a pair, as llama.cpp multiplies it, with what PEFT's delta becomes in the host."""
    a, b = factors.get(f"{name}.lora_a"), factors.get(f"{name}.lora_b")
    if a is None or b is None:
        return TensorCheck(f"{name} (LoRA)", "nothing", fault="lacks a factor of its delta, or both")
    scale = alpha / b.tensor.shape[1] if alpha else 1.0  # alpha 0 means no scaling
    left, right = (a, whole(b).T) if name == "token_embd.weight" else (b, whole(a))
    product = ProductSums()
    for rows in left.blocks():
        found = scale * left.values(rows) @ right
        wanted = want.rows(rows, True) - want.rows(rows, False)
        if found.shape != wanted.shape:
            return TensorCheck(f"{name} (LoRA)", "nothing", fault=f"has shape {found.shape}, not {wanted.shape}")
        product.add(found, wanted)
    return product.judged(f"{name} (LoRA)", coarser_type(a, b), DELTA_TOLERANCE)


def _unserved(wanted: Mapping[str, Want], gemma: HostedGemma) -> Iterator[str]:
    served = {parameter for want in wanted.values() for parameter in want.parameters}
    return (name for name in gemma.reference.names if name not in served)


def _check(name: str, want: Want, gemma: HostedGemma, original: Mapping[str, Weights]) -> TensorCheck:
    if name not in gemma.stored:
        return TensorCheck(name, "nothing", fault="is missing")
    weights = gemma.stored[name]
    type_name = weights.tensor.type.name
    touched = not gemma.reference.touched.isdisjoint(want.parameters)
    if want.copies and not touched and name in original and weights.is_identical(original[name]):
        return TensorCheck(name, "bytes", type_name)
    return _compare(name, want, weights, touched=touched)


def _compare(name: str, want: Want, weights: Weights, *, touched: bool) -> TensorCheck:
    type_name = weights.tensor.type.name
    sums = RoundedSums(type_name, _VECTOR_ROUNDINGS if len(weights.tensor.shape) == 1 else 1.0)
    for rows in weights.blocks():
        stored, served = weights.values(rows), want.rows(rows, True)
        if stored.size != served.size:
            fault = f"has rows of {stored.size // len(stored)}, wanted {served.size // len(served)}"
            return TensorCheck(name, "nothing", type_name, touched, fault=fault)
        base = want.rows(rows, False).reshape(stored.shape) if touched else None
        sums.add(stored, served.reshape(stored.shape), base)
    return sums.judged(name, " and ".join(want.parameters) or "weights", touched=touched)
