"""Tables held against what llama.cpp's own converter makes of numbered elements: every name, order, stack and addend.

A table is right where the GGUF tensor that it makes of a module's numbers is llama.cpp's, element by element, and where
nothing of the GGUF is left over.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader

from converter.architectures import Architecture, Place
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.module_paths import normal_module, tower_of
from converter.values.orders import indices
from tools.coded_models import CodedModel, Codes, Subject, coded
from tools.llama_cpp_sources import Job, convert

_GENERATED: Final = ("rope_freqs.weight",)  # of the config


class Difference(NamedTuple):
    """What a table says of a module or a GGUF tensor, against what was measured."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name} {self.text}"


@dataclass(frozen=True)
class Measured:
    """A model of numbered elements, and the GGUF that llama.cpp's converter made of it."""

    model: CodedModel
    error: str = ""  # what the converter ended with

    @cached_property
    def base(self) -> BaseModel:
        return read_base_model(self.model.directory)

    @cached_property
    def tensors(self) -> Mapping[str, Codes]:
        """The GGUF's tensors. Raises RuntimeError where the converter failed."""
        if self.error:
            raise RuntimeError(f"llama.cpp's converter made nothing of {self.model.directory.name}:\n{self.error}")
        return {tensor.name: np.array(tensor.data) for tensor in GGUFReader(self.model.gguf).tensors}

    @cached_property
    def never_smaller(self) -> frozenset[str]:
        """The matrices that are F32 in a GGUF of F16, too."""
        reader = GGUFReader(self.model.halved)
        return frozenset(
            t.name for t in reader.tensors if len(t.shape) > 1 and t.tensor_type == GGMLQuantizationType.F32
        )

    @cached_property
    def codes(self) -> Mapping[str, Codes]:
        """The numbers of each parameter of the text model, as it is called in memory and in the checkpoint."""
        codes = {**self.model.stored, **self.model.parameters}
        return {normal_module(name): values for name, values in codes.items() if tower_of(name) is None}


def _jobs(model: CodedModel) -> tuple[Job, Job]:
    as_stated = None in model.subject.saved.values()
    halved = Job(model.directory, model.halved, "MOSTLY_F16", as_stated)
    return Job(model.directory, model.gguf, as_stated=as_stated), halved


def measured(subjects: Iterable[Subject], directory: Path) -> Mapping[str, tuple[Measured, ...]]:
    """Each subject, measured twice."""
    models = [
        coded(subject, directory / f"{subject}-{'other' if other else 'own'}-sizes", other=other)
        for subject in subjects
        for other in (False, True)
    ]
    jobs = (job for model in models for job in _jobs(model))
    failed = convert(jobs)
    found: dict[str, tuple[Measured, ...]] = {}
    for model in models:
        found[model.subject.name] = (
            *found.get(model.subject.name, ()),
            Measured(model, failed.get(model.gguf, "")),
        )
    return found


def differences(found: Measured, table: Architecture | None = None) -> list[Difference]:
    """Where the table of a model's architecture is wrong; ``table`` is another one to hold against it."""
    table = table or found.base.architecture
    if table is None:
        return [Difference(found.model.subject.model_type, "has no table")]
    base = replace(found.base, architecture=table)
    left = {name: np.ones(values.shape, bool) for name, values in found.tensors.items() if name not in _GENERATED}
    wrong = [
        difference
        for name, values in found.codes.items()
        for difference in _of_parameter(name, values, base, found, left)
    ]
    for name, n, value in base.made(base.multiplier):
        if name in left and np.array_equal(found.tensors[name], np.full(n, value, np.float32)):
            left[name][...] = False
        else:
            wrong.append(Difference(name, f"is no {value}"))
    # Of a GGUF base everything is copied.
    over = () if table.metadata.only_copied else (name for name, values in left.items() if values.any())
    return wrong + [Difference(name, "has numbers that no module makes") for name in over]


def entries(found: Measured) -> set[tuple[str, str]]:
    """The modules of the table that a measurement has looked at, each with its tensor: both as patterns."""
    base = found.base
    modules = (_module(name)[0] for name in found.codes)
    places = ((module, place) for module in modules for place in base.places(_canonical(module, base)))
    return {(pattern(_canonical(module, base)), pattern(place.tensor)) for module, place in places}


def pattern(name: str) -> str:
    """A name with its numbers as placeholders, as tables have it."""
    for placeholder in ("{i}", "{e}"):
        name = re.sub(r"(?<=\.)\d+(?=\.)", placeholder, name, count=1)
    return name


def _module(name: str) -> tuple[str, str]:
    """A parameter's module, and what it is called there; fused experts are parameters of no module of their own."""
    module, _, parameter = name.rpartition(".")
    if parameter in {"weight", "bias"}:
        return module, parameter
    return (name.removesuffix("_bias"), "bias") if name.endswith("_proj_bias") else (name, "weight")


def _canonical(module: str, base: BaseModel) -> str:
    return base.architecture.canonical(module) if base.architecture else module


def _of_parameter(
    name: str, values: Codes, base: BaseModel, found: Measured, left: Mapping[str, npt.NDArray[np.bool_]]
) -> Iterator[Difference]:
    module, parameter = _module(name)
    for place in base.places(_canonical(module, base)):
        tensor = place.name(parameter)
        if parameter == "bias" and not place.bias:
            continue
        if tensor not in left:
            yield Difference(module, f"is no {tensor}")
            continue
        slab = ... if place.expert is None else place.expert
        left[tensor][slab] = False
        if parameter == "weight" and len(place.shape) > 1 and place.f32 != (tensor in found.never_smaller):
            yield Difference(module, f"is {'halved' if place.f32 else 'never smaller than F32'} in {tensor}")
        if _misshaped(place, parameter, values, base):
            yield Difference(module, f"has the shape {values.shape}")
        elif not _is(found.tensors[tensor][slab], _made(place, parameter, values, base), place):
            yield Difference(module, f"is another {tensor}")


def _is(found: Codes, made: Codes, place: Place) -> bool:
    """Whether all numbers are the same, but for the rounding of those that are computed."""
    if place.operation:
        return found.size == made.size and np.allclose(found.ravel(), made.ravel(), rtol=1e-4, atol=0)
    return np.array_equal(found.ravel(), made.ravel())


def _misshaped(place: Place, parameter: str, values: Codes, base: BaseModel) -> bool:
    """Whether the table says another shape, or orders that don't fit into it."""
    dims = base.dims_of(place.module)
    shape = tuple(dims[dim] for dim in place.shape)
    if parameter == "bias":
        shape = (*shape[:-2], shape[-2:][0])
    elif place.transposed:
        shape = (*shape[:-2], *shape[-2:][::-1])
    try:
        base.orders(place)
    except ValueError:
        return True
    return shape != _squeezed(values).shape


def _squeezed(values: Codes) -> Codes:
    """Kernels over one channel are matrices."""
    return values.squeeze(1) if values.ndim == 3 and values.shape[1] == 1 else values


def _made(place: Place, parameter: str, values: Codes, base: BaseModel) -> Codes:
    """What the table makes of a parameter's numbers, in GGUF's order."""
    orders = base.orders(place)
    if parameter == "bias":
        return values[..., indices(orders.rows, values.shape[-1])]
    if values.ndim == 1:
        moved = values[indices(orders.rows, len(values))]
        return -np.exp(moved) if place.operation == "negative_exp" else moved + np.float32(place.add)
    values = values.swapaxes(-1, -2) if place.transposed else _squeezed(values)
    rows, columns = (indices(order, values.shape[axis]) for order, axis in ((orders.rows, -2), (orders.columns, -1)))
    made: Codes = values[..., rows, :][..., columns] + np.float32(place.add)
    if place.operation == "negative_exp":
        return -np.exp(made)
    begin = 0
    for section in base.factors(place):  # bit for bit, as torch multiplies
        for factor in section.factors:
            made[begin : begin + section.n_rows] *= np.float32(factor)
        begin += section.n_rows
    if place.stacked == "turned":
        n_heads = base.dims_of(place.module)["n_head"]
        return made.reshape(n_heads, -1, made.shape[-1]).swapaxes(1, 2)
    return made
