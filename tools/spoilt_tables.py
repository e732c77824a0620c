"""Tables with one fault each: what a slip of the hand, or of the eye, makes of a right one."""

from collections.abc import Iterator
from typing import Any

from converter.architectures import Architecture, Place

HALVES = "2 _ -> _ 2"


def spoilt(table: Architecture) -> Iterator[tuple[str, Architecture]]:
    """Each fault, and the table that has it: an order, an addend, a layout, a name, two tensors exchanged."""
    for module, places in table.modules.items():
        for at, place in enumerate(places):
            for fault, changed in _faults(place):
                modules = {**table.modules, module: (*places[:at], changed, *places[at + 1 :])}
                yield f"{module} {fault}", table._replace(modules=modules)
    yield from _exchanged(table)
    for name, made in table.made.items():
        yield f"{name} made of 2", table._replace(made={**table.made, name: made._replace(value=2.0)})


def _faults(place: Place) -> Iterator[tuple[str, Place]]:
    def changed(**fields: Any) -> tuple[str, Place]:
        return " ".join(f"{name}={value!r}" for name, value in fields.items()), place._replace(**fields)

    yield changed(shape=("vocab", *place.shape[1:]) if place.shape[0] != "vocab" else ("hidden", *place.shape[1:]))
    yield changed(tensor=f"{place.tensor}_exp")
    yield changed(operation="") if place.operation else changed(add=0.0 if place.add else 1.0)
    if len(place.shape) == 1 and place.rows:
        yield changed(rows="")
    if len(place.shape) > 1:
        yield changed(f32=not place.f32)
        if place.shape[-2] != "one":
            yield changed(rows="" if place.rows else HALVES)
        yield changed(columns="" if place.columns else HALVES)
    if len(place.shape) > 1 and "one" not in place.shape:
        yield changed(transposed=not place.transposed)
    for at, section in enumerate(place.factors):
        yield changed(factors=(*place.factors[:at], section[:-1], *place.factors[at + 1 :]))
    if "=0" in place.rows:
        yield changed(rows=place.rows.replace("=0", "=1"))


def _exchanged(table: Architecture) -> Iterator[tuple[str, Architecture]]:
    """Two modules of one shape, each in the other's tensor."""
    single = [(module, places[0]) for module, places in table.modules.items() if len(places) == 1]
    for at, (module, place) in enumerate(single):
        same = (pair for pair in single[at + 1 :] if pair[1].shape == place.shape and pair[1].tensor != place.tensor)
        for other, twin in list(same)[:1]:
            modules = {
                **table.modules,
                module: (place._replace(tensor=twin.tensor),),
                other: (twin._replace(tensor=place.tensor),),
            }
            yield f"{module} exchanged with {other}", table._replace(modules=modules)


class ExpertsExchanged(Architecture):
    """A table whose experts 0 and 1 are each other's slab."""

    def places(self, module: str) -> tuple[Place, ...]:
        """The places, two of them exchanged."""
        other = {0: 1, 1: 0}
        return tuple(
            place if place.expert is None else place._replace(expert=other.get(place.expert, place.expert))
            for place in super().places(module)
        )
