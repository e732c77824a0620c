"""Which tensors of a Hugging Face checkpoint make up each GGUF tensor, and what is missing or left over.

Experts come as one parameter (transformers 5) or as modules of their own; GPT-2's first checkpoints hold buffers.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from converter.architectures import Place, numbers_in
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import HEAD, tower_of
from converter.dtypes import SAFETENSORS_FLOATS
from converter.read.stored import StoredTensor

# What no graph needs: buffers that older transformers saved, and layers that predict tokens behind the next one, which
# llama.cpp would serve from a file of their own.
_NEEDLESS: Final = r".*\.(rotary_emb\.inv_freq|attn\.bias|attn\.masked_bias)|mtp\..*|model\.mtp_.*"


class Part(NamedTuple):
    """A stored tensor, and where it goes as the module's ``parameter`` (weight or bias)."""

    key: str
    tensor: StoredTensor
    place: Place
    parameter: str


def parts_of(base: BaseModel) -> Mapping[str, tuple[Part, ...]]:
    """The parts of each GGUF tensor, by its full name, in the order of the checkpoint. A tied head has none."""
    parts: dict[str, tuple[Part, ...]] = {}
    for key, tensor in base.tensors.items():
        for place, parameter in _places(base, key):
            name = place.name(parameter)
            parts[name] = (*parts.get(name, ()), Part(key, tensor, place, parameter))
    return parts


def _places(base: BaseModel, key: str) -> Iterator[tuple[Place, str]]:
    module, parameter = _split(key)
    if module == HEAD and base.tied:
        return
    for place in base.places(module):
        if parameter == "weight" or place.bias:
            yield place, parameter


def _split(key: str) -> tuple[str, str]:
    """The module and its parameter; fused experts are parameters without a module of their own."""
    module, _, parameter = key.rpartition(".")
    return (module, parameter) if parameter in {"weight", "bias"} else (key, "weight")


def left_over(base: BaseModel) -> Iterator[str]:
    """The tensors of a checkpoint that its GGUF has no place for."""
    in_metadata = {key for keys in base.numbers().values() for key in keys}
    for key in base.tensors:
        is_tied_head = _split(key)[0] == HEAD and base.tied
        is_needed = key not in in_metadata and not _is_needless(base, key)
        if is_needed and not is_tied_head and not any(_places(base, key)):
            yield key


def _is_needless(base: BaseModel, key: str) -> bool:
    """Whether no graph of a text model needs a tensor: the parts of a multimodal model around it are none of it."""
    return re.fullmatch(_NEEDLESS, key) is not None or tower_of(key) is not None or _predicts_further(base, key)


def _predicts_further(base: BaseModel, key: str) -> bool:
    """Whether a tensor is of the layers behind the model's own (GLM 4.5's, DeepSeek V3's)."""
    n, numbers = base.config.get("num_nextn_predict_layers"), numbers_in(key)
    return isinstance(n, int) and bool(numbers) and base.dims["n_layer"] <= numbers[0] < base.dims["n_layer"] + n


def without_numbers(base: BaseModel) -> Iterator[tuple[str, str]]:
    """The tensors that a GGUF would have and that are stored as anything but floats: key, and type."""
    for key, tensor in base.tensors.items():
        if tensor.dtype not in SAFETENSORS_FLOATS and any(_places(base, key)):
            yield key, tensor.dtype


def missing(base: BaseModel) -> Iterator[str]:
    """The GGUF tensors that a checkpoint has no weights, or not all, for, and what its metadata lack."""
    yield from (key for keys in base.numbers().values() for key in keys if key not in base.tensors)
    parts = parts_of(base)
    for tensor in _wanted(base):
        found = parts.get(tensor, ())
        experts = {part.place.expert for part in found}
        if not found or (None not in experts and len(experts) < base.dims["n_expert"]):
            yield tensor


def _wanted(base: BaseModel) -> Iterator[str]:
    places = (place for places in base.architecture.modules.values() for place in places) if base.architecture else ()
    names = (name for t in places if t.module != HEAD or not base.tied for name in _names(base, t))
    yield from dict.fromkeys(names)


def _names(base: BaseModel, place: Place) -> Iterator[str]:
    """The tensor of a place in each of its layers."""
    name = place.name("weight")
    if "{i}" not in name:
        if base.place(place.module):
            yield name
        return
    for i in range(base.dims["n_layer"]):
        module, tensor = (text.replace("{i}", str(i)) for text in (place.module.replace("{e}", "0"), place.tensor))
        if any(found.tensor == tensor for found in base.places(module)) and not base.may_lack(module):
            yield name.replace("{i}", str(i))


def disordered(base: BaseModel, module: str) -> str:
    """Why a module's rows or columns can't be put in order by the sizes that the base states; nothing where they can.

    A matrix of another size would be put in order in part, and the rest of it left out.
    """
    stored, places = base.weight(module), base.places(module)
    place = next((place for place in places if place.rows or place.columns), None)
    if stored is None or place is None or len(stored.shape) != len(place.shape):
        return ""
    try:
        wanted = _ordered_shape(base, place)
    except ValueError as error:
        return f"can't be put in order: {error}"
    if stored.shape == wanted:
        return ""
    return f"has the shape {list(stored.shape)}, wanted {list(wanted)} by the sizes that the base states"


def _ordered_shape(base: BaseModel, place: Place) -> tuple[int, ...]:
    """The shape of a place's tensor as it is stored. Raises ValueError where an order doesn't fit the sizes."""
    dims = base.dims_of(place.module)
    shape, orders = tuple(dims[dim] for dim in place.shape), base.orders(place)
    if base.format == "huggingface":
        return shape[::-1] if place.transposed else shape
    *experts, n_rows, n_columns = shape if len(shape) > 1 else (*shape, 0)
    ordered = (*experts, orders.rows.count(n_rows), orders.columns.count(n_columns))
    return ordered if len(shape) > 1 else ordered[:1]


def misshaped(base: BaseModel) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """The tensors of another shape than the config says: key, shape, and the shape that is wanted."""
    for key in (key for keys in base.numbers().values() for key in keys if key in base.tensors):
        if base.tensors[key].n_elements != 1:
            yield key, base.tensors[key].shape, (1,)
    for key, tensor in base.tensors.items():
        module, parameter = _split(key)
        place = base.place(module)
        if place is None or (module == HEAD and base.tied):
            continue
        dims = base.dims_of(module)
        wanted = tuple(dims[dim] for dim in place.shape)
        wanted = wanted[::-1] if place.transposed else wanted
        wanted = wanted if parameter == "weight" else (wanted[-1] if place.transposed else wanted[0],)
        if tensor.shape != wanted:
            yield key, tensor.shape, wanted
