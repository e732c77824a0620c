"""The tensor proof of a merged model: every tensor of the GGUF against PEFT's weights in float64.

Logits alone don't show that nothing was dropped: with one module of a real adapter zeroed, 27 of 29 cases passed
an effect ratio of 0.005. So each tensor that the adapter touches must lie within the rounding of its type and keep
its delta, each other one must be the base's byte for byte, and none may be missing or in excess.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from converter.architectures import Place
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.errors import ConverterError
from converter.verification.factors import factors_of
from converter.verification.gguf_weights import Weights, weights_of
from converter.verification.learned_numbers import checks_of_numbers
from converter.verification.orders import (
    Dims,
    biases_of_huggingface,
    columns_of_huggingface,
    n_rows_in_gguf,
    rows_of_heads,
    rows_of_huggingface,
)
from converter.verification.reference import Reference
from converter.verification.rounding import has_bound
from converter.verification.sums import RoundedSums
from converter.verification.tensor_proof import TensorCheck, TensorProof

Progress = Callable[[int, int], None]

# Made by conversion from the config's rope scaling; transformers keeps them in no parameter.
_WITHOUT_PARAMETER: Final = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A parameter of PEFT's model and the GGUF tensor that is to serve it."""

    parameter: str
    tensor: str
    place: Place

    @property
    def is_bias(self) -> bool:
        """Whether it is a bias, and no weight."""
        return self.parameter.endswith(".bias")


def prove_model(deployed: BaseModel, base: BaseModel | None, reference: Reference, progress: Progress) -> TensorProof:
    """Compare every tensor of ``deployed`` with PEFT's, the untouched ones with the ``base`` GGUF's bytes."""
    stored, original = weights_of(deployed), _as_replicated(weights_of(base), reference.layers) if base else {}
    wanted = tuple(_wanted(deployed, stored, reference, is_compared=bool(original)))
    checks: list[TensorCheck] = []
    for done, want in enumerate(wanted):
        progress(done, len(wanted))
        checks.append(_check(want, stored, original, reference, deployed.dims_of(want.place.module)))
    known = {want.tensor for want in wanted}
    checks += checks_of_numbers(deployed, reference)
    made = {name: np.full(n, value, np.float32) for name, n, value in deployed.made(reference.setting)}
    others = (name for name in {**stored, **original, **made} if name not in known)
    checks += [_check_other(name, stored, original, made.get(name)) for name in others]
    return TensorProof(tuple(checks))


def _as_replicated(original: Mapping[str, Weights], layers: Sequence[int]) -> Mapping[str, Weights]:
    """The base's tensors under the numbers that its layers have in the grown model."""
    if not layers:
        return original
    grown = {name: weights for name, weights in original.items() if not name.startswith("blk.")}
    for number, layer in enumerate(layers):
        before = f"blk.{layer}."
        own = {name.removeprefix(before): weights for name, weights in original.items() if name.startswith(before)}
        grown |= {f"blk.{number}.{name}": weights for name, weights in own.items()}
    return grown


def _wanted(
    deployed: BaseModel, stored: Mapping[str, Weights], reference: Reference, *, is_compared: bool
) -> Iterator[_Wanted]:
    """What serves each parameter. Where every other tensor ``is_compared`` with the base's, some need no table.

    llama.cpp's converter computes with them: Qwen 3.5's decays. What metadata hold is compared there.
    """
    in_metadata = {f"{name}.weight" for names in deployed.numbers().values() for name in names}
    for parameter in reference.names:
        if parameter in in_metadata and parameter not in reference.touched:
            continue
        module, _, leaf = parameter.rpartition(".")
        places = deployed.places(module)
        if not places and is_compared and parameter not in reference.touched:
            continue
        if not places:
            raise ConverterError(f"{deployed.path}: {deployed.model_type} has no tensor for PEFT's {parameter}")
        for place in places:
            tensor = place.name(leaf)
            # Without a head of its own the file serves the embedding as head, right or wrong.
            if module == HEAD and tensor not in stored:
                tensor = "token_embd.weight"
            if deployed.match and is_compared and parameter not in reference.touched and tensor not in stored:
                continue  # a bias that is called otherwise, of which only the weight was looked for
            yield _Wanted(parameter, tensor, place)


def _check(
    want: _Wanted,
    stored: Mapping[str, Weights],
    original: Mapping[str, Weights],
    reference: Reference,
    dims: Dims,
) -> TensorCheck:
    if want.tensor not in stored:
        return TensorCheck(want.tensor, "nothing", fault=f"is missing; it serves {want.parameter}")
    weights, before = stored[want.tensor], _before(want, original)
    weights = weights.as_vector() if want.place.folded and not before else weights
    if want.place.expert is not None:  # a matrix of a stack: Gemma 3n's altup_projections
        weights, before = weights.slab(want.place.expert), before.slab(want.place.expert) if before else None
    type_name, touched = weights.tensor.type.name, want.parameter in reference.touched
    if not touched and before:
        return _compare_bytes(want, weights, before)
    if not touched and not has_bound(type_name):
        return TensorCheck(want.tensor, "nothing", type_name)
    found, wanted = weights.tensor.shape, reference.shape(want.parameter)
    column = (1,) if want.is_bias else ()  # one for each row of a matrix, or of each expert's
    if not fits((*found, *column), (*wanted, *column), want.place, dims, reference.n_rows_needed):
        fault = f"has shape {found}, PEFT's {want.parameter} {wanted}"
        return TensorCheck(want.tensor, "nothing", type_name, touched, fault=fault)
    compare = _compare_heads if want.place.stacked else _compare_numbers
    return compare(want, weights, reference, dims)


def _before(want: _Wanted, original: Mapping[str, Weights]) -> Weights | None:
    # An untied head that the adapter leaves alone is a copy of the embedding it was tied to.
    tied = original.get("token_embd.weight") if want.place.module == HEAD else None
    return original.get(want.tensor, tied)


def _compare_bytes(want: _Wanted, weights: Weights, before: Weights) -> TensorCheck:
    fault = f"differs from the base's, though the adapter leaves {want.parameter} alone"
    same = weights.is_identical(before)
    return TensorCheck(want.tensor, "bytes", weights.tensor.type.name, fault=None if same else fault)


def fits(found: tuple[int, ...], wanted: tuple[int, ...], place: Place, dims: Dims, n_rows_needed: int) -> bool:
    """Whether a GGUF's shape can serve PEFT's.

    llama.cpp's conversion of Gemma 3 trims rows beyond the tokenizer, and takes some tensors apart: gate and up of
    fused experts.
    """
    if place.stacked:
        n = n_rows_in_gguf(place, dims) // found[0]
        return found[1:] == ((wanted[1], n) if place.stacked == "turned" else (n, wanted[1]))
    if place.rows and len(wanted) > 1:
        wanted = (*wanted[:-2], n_rows_in_gguf(place, dims), wanted[-1])
    found = found[:-1] if place.column and found[-1] == 1 else found
    is_shorter = found[1:] == wanted[1:] and n_rows_needed <= found[0] < wanted[0]
    return found == wanted or (place.module in {HEAD, EMBEDDING} and is_shorter)


def _compare_numbers(want: _Wanted, weights: Weights, reference: Reference, dims: Dims) -> TensorCheck:
    is_replaced = want.parameter.removesuffix(".weight") not in reference.pairs
    sums = RoundedSums(weights.tensor.type.name, is_replaced=is_replaced)
    columns = columns_of_huggingface(want.place, dims)
    add = 0.0 if want.is_bias else want.place.add
    of_experts = want.is_bias and len(weights.tensor.shape) > 1
    columns = biases_of_huggingface(want.place, dims) if of_experts else columns
    factors = None if want.is_bias else factors_of(want.place, dims, reference)
    touched = want.parameter in reference.touched
    rounded = None if touched else np.float16 if weights.tensor.type.name == "F16" else np.float32
    for rows in weights.blocks():
        source = rows if of_experts else rows_of_huggingface(want.place, dims, weights.tensor.shape, rows)
        served, base = reference.weight(want.parameter, source), reference.base_weight(want.parameter, source)
        if served.ndim > 1:
            served, base = served[:, columns], base[:, columns]
        if factors is not None:
            served, base = (factors.times(values, rows, rounded=rounded) for values in (served, base))
        if want.place.operation == "negative_exp":
            served, base = -np.exp(served), -np.exp(base)
        found = weights.values(rows)[:, 0] if want.place.column else weights.values(rows)
        sums.add(found, served + add, base + add)
    return sums.judged(want.tensor, want.parameter, touched=touched)


def _compare_heads(want: _Wanted, weights: Weights, reference: Reference, dims: Dims) -> TensorCheck:
    """A stack of each head's rows, or of those turned round."""
    sums = RoundedSums(
        weights.tensor.type.name, is_replaced=want.parameter.removesuffix(".weight") not in reference.pairs
    )
    n_heads, n_rows, _ = weights.tensor.shape
    of_heads = rows_of_heads(want.place, dims).reshape(n_heads, -1)
    for head, rows in enumerate(of_heads):
        served, base = reference.weight(want.parameter, rows), reference.base_weight(want.parameter, rows)
        if want.place.stacked == "turned":
            served, base = served.T, base.T
        sums.add(weights.values(slice(head * n_rows, (head + 1) * n_rows)), served, base)
    return sums.judged(want.tensor, want.parameter, touched=want.parameter in reference.touched)


def _check_other(
    name: str, stored: Mapping[str, Weights], original: Mapping[str, Weights], made: np.ndarray | None
) -> TensorCheck:
    """A tensor that serves no parameter of the model; what is ``made`` follows from the config."""
    if name not in stored:
        return TensorCheck(name, "nothing", fault="is missing; the base has it")
    type_name = stored[name].tensor.type.name
    if name in original:
        fault = None if stored[name].is_identical(original[name]) else "differs from the base's"
        return TensorCheck(name, "bytes", type_name, fault=fault)
    if made is not None:
        found = stored[name].values(slice(0, stored[name].n_rows))
        fault = None if np.array_equal(found, made) else "isn't what the config says"
        return TensorCheck(name, "numbers", type_name, fault=fault)
    fault = None if name in _WITHOUT_PARAMETER and not original else "is in excess; PEFT has no such weight"
    return TensorCheck(name, "nothing", type_name, fault=fault)
