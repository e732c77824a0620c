"""The tensor proof of a merged model: every tensor of the GGUF against PEFT's weights in float64.

Logits alone don't show that nothing was dropped: with one module of a real adapter zeroed, 27 of 29 cases passed
an effect ratio of 0.005. So each tensor that the adapter touches must lie within the rounding of its type and keep
its delta, each other one must be the base's byte for byte, and none may be missing or in excess.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from converter.architectures import Place
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.errors import ConverterError
from converter.verification.gguf_weights import Weights, weights_of
from converter.verification.orders import Dims, columns_of_huggingface, n_rows_in_gguf, rows_of_huggingface
from converter.verification.reference import Reference
from converter.verification.rounding import has_bound, rounding_bound

Progress = Callable[[int, int], None]

# Conversion stops below a half as well. Correct rounding of real adapters of 40 steps keeps 0.68 to 1.00 of each
# tensor's delta in BF16 and 0.77 to 1.02 in Q8_0; a dropped module keeps 0, and one added twice 2.
KEPT_AT_LEAST: Final = 0.5
KEPT_AT_MOST: Final = 1.5

# Made by conversion from the config's rope scaling; transformers keeps them in no parameter.
_WITHOUT_PARAMETER: Final = frozenset({"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """What was found of one tensor. ``type`` is None for a tensor that is not there, ``touched`` by the adapter.

    ``error`` is the largest error over the allowed one; None where the type has no bound. ``kept`` is the share of
    the delta D that is there, <stored - base, D> / ||D||^2; None where there is no delta.
    """

    tensor: str
    by: Literal["numbers", "bytes", "nothing"]
    type: str | None = None
    touched: bool = False
    error: float | None = None
    kept: float | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class TensorProof:
    """Every tensor of a file, in the model's order; those in excess last."""

    checks: tuple[TensorCheck, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, a line each; empty where all is proven."""
        return tuple(f"{check.tensor} {check.fault}" for check in self.checks if check.fault)

    def n_by(self, by: Literal["numbers", "bytes", "nothing"]) -> int:
        """How many tensors were compared by numbers, by bytes, or not at all."""
        return sum(check.by == by for check in self.checks)

    @property
    def error(self) -> float:
        """The largest error of any tensor, over the one allowed."""
        return max((check.error for check in self.checks if check.error is not None), default=0.0)

    @property
    def kept(self) -> tuple[float, float] | None:
        """The least and the largest share that a tensor holds of its delta."""
        shares = [check.kept for check in self.checks if check.kept is not None]
        return (min(shares), max(shares)) if shares else None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A parameter of PEFT's model and the GGUF tensor that is to serve it."""

    parameter: str
    tensor: str
    place: Place


def prove_model(deployed: BaseModel, base: BaseModel | None, reference: Reference, progress: Progress) -> TensorProof:
    """Compare every tensor of ``deployed`` with PEFT's, the untouched ones with the ``base`` GGUF's bytes."""
    stored, original = weights_of(deployed), _as_replicated(weights_of(base), reference.layers) if base else {}
    wanted = tuple(_wanted(deployed, stored, reference))
    checks: list[TensorCheck] = []
    for done, want in enumerate(wanted):
        progress(done, len(wanted))
        checks.append(_check(want, stored, original, reference, deployed.dims_of(want.place.module)))
    known = {want.tensor for want in wanted}
    checks += [_check_other(name, stored, original) for name in {**stored, **original} if name not in known]
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


def _wanted(deployed: BaseModel, stored: Mapping[str, Weights], reference: Reference) -> Iterator[_Wanted]:
    for parameter in reference.names:
        module, _, kind = parameter.rpartition(".")
        places = deployed.places(module)
        if not places:
            raise ConverterError(f"{deployed.path}: {deployed.model_type} has no tensor for PEFT's {parameter}")
        for place in places:
            tensor = f"{place.tensor}.{kind}"
            # Without a head of its own the file serves the embedding as head, right or wrong.
            if module == HEAD and tensor not in stored:
                tensor = "token_embd.weight"
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
    type_name, touched = weights.tensor.type.name, want.parameter in reference.touched
    if not touched and before:
        return _compare_bytes(want, weights, before)
    if not touched and not has_bound(type_name):
        return TensorCheck(want.tensor, "nothing", type_name)
    found, wanted = weights.tensor.shape, reference.shape(want.parameter)
    if not fits(found, wanted, want.place, dims, reference.n_rows_needed):
        fault = f"has shape {found}, PEFT's {want.parameter} {wanted}"
        return TensorCheck(want.tensor, "nothing", type_name, touched, fault=fault)
    return _compare_numbers(want, weights, reference, dims)


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
    if place.rows and len(wanted) > 1:
        wanted = (*wanted[:-2], n_rows_in_gguf(place, dims), wanted[-1])
    is_shorter = found[1:] == wanted[1:] and n_rows_needed <= found[0] < wanted[0]
    return found == wanted or (place.module in {HEAD, EMBEDDING} and is_shorter)


def _compare_numbers(want: _Wanted, weights: Weights, reference: Reference, dims: Dims) -> TensorCheck:
    type_name, worst, held, norm2 = weights.tensor.type.name, 0.0, 0.0, 0.0
    columns = columns_of_huggingface(want.place, dims)
    add = 0.0 if want.parameter.endswith(".bias") else want.place.add
    for rows in weights.blocks():
        source = rows_of_huggingface(want.place, dims, weights.tensor.shape, rows)
        stored = weights.values(rows) - add
        served, base = reference.weight(want.parameter, source), reference.base_weight(want.parameter, source)
        if served.ndim > 1:
            served, base = served[:, columns], base[:, columns]
        if has_bound(type_name):
            bound = rounding_bound(served + add, type_name)
            worst = float(np.maximum(worst, (np.abs(stored - served) / bound).max()))  # keeps NaN
        held += float(((stored - base) * (served - base)).sum())
        norm2 += float(((served - base) ** 2).sum())
    error = worst if has_bound(type_name) else None
    kept = held / norm2 if norm2 > 0 else None
    touched, fault = want.parameter in reference.touched, _fault(want.parameter, type_name, error, kept)
    return TensorCheck(want.tensor, "numbers", type_name, touched, error, kept, fault)


def _fault(parameter: str, type_name: str, error: float | None, kept: float | None) -> str | None:
    if error is not None and not error <= 1:  # NaN is a fault
        return f"is off from PEFT's {parameter} by {error:.4g} times what {type_name} allows"
    if kept is not None and not KEPT_AT_LEAST <= kept <= KEPT_AT_MOST:
        return f"holds {kept:.3g} of the delta of {parameter} in {type_name}, wanted 1"
    return None


def _check_other(name: str, stored: Mapping[str, Weights], original: Mapping[str, Weights]) -> TensorCheck:
    """A tensor that serves no parameter of the model."""
    if name not in stored:
        return TensorCheck(name, "nothing", fault="is missing; the base has it")
    type_name = stored[name].tensor.type.name
    if name in original:
        fault = None if stored[name].is_identical(original[name]) else "differs from the base's"
        return TensorCheck(name, "bytes", type_name, fault=fault)
    fault = None if name in _WITHOUT_PARAMETER and not original else "is in excess; PEFT has no such weight"
    return TensorCheck(name, "nothing", type_name, fault=fault)
