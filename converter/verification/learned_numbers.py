"""The proof of what metadata keep, and PEFT's model has as parameters of one number each: Apertus' xIELU."""

from collections.abc import Iterator

import numpy as np

from converter.derive.base_model import BaseModel
from converter.read.gguf_header import GgufArray, read_scalars
from converter.verification.reference import Reference
from converter.verification.tensor_proof import TensorCheck


def checks_of_numbers(deployed: BaseModel, reference: Reference) -> Iterator[TensorCheck]:
    """A check for each key: a number of each layer, rounded once to float32."""
    for key, parameters in deployed.numbers().items():
        wanted = np.array([reference.number(f"{name}.weight") for name in parameters], np.float32)
        is_same = np.array_equal(np.array(_found(deployed, key), np.float32), wanted)
        yield TensorCheck(key, "numbers", "F32", fault=None if is_same else f"isn't what PEFT's {parameters[0]} is")


def _found(deployed: BaseModel, key: str) -> tuple[float, ...]:
    shard = deployed.shards[0]
    value = shard.kv.get(key)
    if isinstance(value, GgufArray):
        return read_scalars(shard.path, value)
    return (float(value),) * deployed.dims["n_layer"] if isinstance(value, int | float) else ()
