"""Tensors of any shape are judged: what is wrong with one is some rule's to say, and never an exception of another."""

from collections.abc import Callable
from contextlib import suppress
from math import prod
from pathlib import Path

import pytest

from converter.errors import ConverterError
from fixtures.generated import write_safetensors
from tests.rules.bad import BAD, Spoil
from tests.rules.specimens import Specimen

Shape = tuple[int, ...]
SHAPES: dict[str, Callable[[Shape], Shape]] = {
    "flat": lambda shape: (prod(shape),),
    "one of a row": lambda shape: (1, *shape),
    "rows of one": lambda shape: (*shape, 1),
    "turned": lambda shape: shape[::-1],
    "one number": lambda _: (),
    "empty": lambda shape: (0, *shape[1:]),
}


def nothing(specimen: Specimen, _: Path) -> None:
    specimen.write()


def kinds(specimen: Specimen) -> dict[str, list[str]]:
    """The keys of each kind of tensor: lora_A.weight, lora_magnitude_vector, ..."""
    found: dict[str, list[str]] = {}
    for key in specimen.tensors:
        found.setdefault(".".join(key.split(".")[-2:]), []).append(key)
    return found


@pytest.mark.parametrize("spoil", [nothing, *(spoil for _, spoil in BAD)], ids=lambda spoil: spoil.__name__)
def test_every_kind_of_tensor_may_have_any_shape(spoil: Spoil, specimen: Specimen, bases: Path) -> None:
    spoil(specimen, bases)
    for keys in kinds(specimen).values():
        given = {key: specimen.tensors[key] for key in keys}
        for shaped in SHAPES.values():
            changed = {key: (dtype, shaped(shape), data) for key, (dtype, shape, data) in given.items()}
            specimen.weights.unlink(missing_ok=True)  # it may be a link
            write_safetensors(specimen.weights, specimen.tensors | changed, specimen.metadata)
            with suppress(ConverterError):  # a base that can't be read
                specimen.report()
