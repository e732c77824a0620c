"""What comparing a GGUF with its checkpoint found (converter/matching), in the form of a table's places."""

from collections.abc import Mapping
from typing import NamedTuple

from converter.architectures import Place


class MatchedTensor(NamedTuple):
    """A GGUF tensor that has the numbers of a checkpoint's parameter, and how it keeps them, for people."""

    tensor: str
    parameter: str
    how: str


class Match(NamedTuple):
    """The ``places`` of the modules that an adapter touches, and why others weren't found (``missing``).

    ``alike`` are the checkpoint's modules that are called like touched ones of other layers.
    """

    places: Mapping[str, tuple[Place, ...]]
    missing: Mapping[str, str]
    tensors: tuple[MatchedTensor, ...]
    alike: tuple[str, ...]
