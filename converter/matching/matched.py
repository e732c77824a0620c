"""A GGUF without a table, with the places of what an adapter touches: as if it had one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from converter.architectures import Architecture, Config, Graph, Metadata, Place, numbers_in
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.match import Match, MatchedTensor
from converter.derive.module_paths import EMBEDDING, HEAD, tower_of
from converter.derive.peft_methods import peft_method
from converter.matching.covers import Cover
from converter.matching.search import Found, Search, across_layers, layer_of
from converter.matching.stored import Gguf, full_name
from converter.matching.vectors import bias_agrees
from converter.matching.weights import weights_of
from converter.orders import order
from converter.read.adapter_config import AdapterConfig
from converter.read.stored import StoredTensor
from converter.values.orders import Indices, indices

Progress = Callable[[int, int], None]

_ENDS: Final = (EMBEDDING, HEAD)
# The roles of tensors that change no parameter of the base.
_OF_NO_MODULE: Final = frozenset({"unknown", "shared"})


def matched(adapter: Adapter, base: BaseModel, progress: Progress = lambda *_: None) -> BaseModel:
    """The base with what comparing it with its checkpoint finds; as it is where it has none, or was compared already.

    The adapter says by its names which modules are looked for; its numbers are not asked. ``progress`` is told how many
    of the modules are done, and how many there are.

    Raises ConverterError where a file can't be read.
    """
    if base.checkpoint is None or base.match:
        return base
    return _Matching(adapter, base, base.checkpoint).base(progress)


class _Matching:
    """One adapter over one base."""

    def __init__(self, adapter: Adapter, base: BaseModel, checkpoint: BaseModel) -> None:
        self._adapter, self._base, self._checkpoint = adapter, base, checkpoint
        self._gguf = Gguf(base)
        adapters = (adapter, adapter.initial) if adapter.initial else (adapter,)
        tensors = [t for a in adapters for t in a.tensors if t.role not in _OF_NO_MODULE and not tower_of(t.module)]
        modules = dict.fromkeys(t.module for t in tensors)
        if base.tied and not modules.keys().isdisjoint(_ENDS):  # what is done to one of them may be to both
            modules |= dict.fromkeys(_ENDS)
        self._modules = tuple(modules)
        self._biased = frozenset(t.module for t in tensors if t.role.endswith("bias"))

    def base(self, progress: Progress) -> BaseModel:
        """The base as if it had a table."""
        match = self._match(progress)
        places = {module: its for module, its in match.places.items() if len(its) == 1 and its[0].is_whole_tensor}
        tensors = {
            f"{module}.{parameter}": stored
            for module, (place,) in places.items()
            for parameter in ("weight", "bias")
            if (stored := self._gguf.tensors.get(place.name(parameter))) is not None
        }
        sizes = {size for its in match.places.values() for place in its for size in place.shape}
        return replace(
            self._base,
            architecture=_architecture(self._base),
            dims={**self._dims(), **{size: int(size) for size in sizes}},
            tensors=tensors,
            match=match,
        )

    def _dims(self) -> Mapping[str, int]:
        kv = self._base.shards[0].kv
        counts = {"n_layer": "block_count", "n_expert": "expert_count"}
        found = {dim: kv.get(f"{self._base.model_type}.{key}", 0) for dim, key in counts.items()}
        embedding = self._gguf.tensors.get("token_embd.weight")
        return {
            **{dim: value if type(value) is int else 0 for dim, value in found.items()},
            "vocab": embedding.shape[0] if embedding else 0,
        }

    def _match(self, progress: Progress) -> Match:
        config = self._adapter.config
        if why := _needs_table(config):
            return Match({}, dict.fromkeys(self._modules, why), (), ())
        search = Search(self._checkpoint, self._gguf, is_conv1d=bool(config and config.raw.get("fan_in_fan_out")))
        done = iter(range(1, len(self._modules) + 1))
        found = search.all(self._modules, lambda: progress(next(done), len(self._modules)))
        missing = {module: it.why for module, it in found.items() if not isinstance(it, Found)}
        places: dict[str, tuple[Place, ...]] = {}
        for module, it in found.items():
            if isinstance(it, Found):
                places[module] = tuple(self._places(module, it))
                wrong = self._wrong_bias(module, places[module])
                missing |= {module: wrong} if wrong else {}
        missing |= dict(_claimed_twice(places)) | dict(search.copies(found))
        kept = {module: its for module, its in places.items() if module not in missing}
        tensors = tuple(line for module, its in kept.items() for line in self._lines(module, its))
        return Match(kept, missing, tensors, tuple(self._alike()))

    # --- Places -------------------------------------------------------------------------------------------------------

    def _places(self, module: str, found: Found) -> Iterator[Place]:
        weights = weights_of(self._checkpoint, module)
        shape = tuple(map(str, weights.shape)) if weights else ()
        if found.vector:
            tensor = full_name(found.layer, found.vector.tensor)
            yield self._with_bias(
                Place(module, tensor.removesuffix(".weight"), shape, add=found.vector.add, lora=False)
            )
        for cover in found.covers:
            yield self._with_bias(self._place(module, found.layer, cover, shape))

    def _place(self, module: str, layer: int | None, cover: Cover, shape: tuple[str, ...]) -> Place:
        name = full_name(layer, cover.tensor)
        if cover.way.transposed:
            shape = (*shape[:-2], *shape[-2:][::-1])
        if module in _ENDS:
            # A tied head has no tensor, and a name all the same; of either there are the rows that the GGUF has.
            shape = (str(self._gguf.tensors[name].shape[0]), *shape[1:])
            name = "output.weight" if module == HEAD else name
        return Place(
            module,
            name.removesuffix(".weight"),
            shape,
            rows=cover.way.rows,
            columns=cover.way.columns,
            transposed=cover.way.transposed,
            expert=_last_number(module) if cover.kind == "slab" else None,
            stacked=cover.kind if cover.kind in ("plain", "turned") else "",
        )

    def _with_bias(self, place: Place) -> Place:
        return place._replace(bias=self._bias(place) is not None and f"{place.module}.bias" in self._checkpoint.tensors)

    def _bias(self, place: Place) -> StoredTensor | None:
        return self._gguf.tensors.get(place.name("bias")) if place.parameter == "weight" else None

    def _wrong_bias(self, module: str, places: tuple[Place, ...]) -> str:
        """Why the bias that an adapter changes isn't that of the GGUF; nothing where it is, or there is none."""
        stored = self._checkpoint.tensors.get(f"{module}.bias")
        if module not in self._biased or stored is None:
            return ""
        for place in places:
            tensor = self._bias(place)
            rows = _rows(place, stored.shape[0])
            if tensor is None or place.expert is not None or not bias_agrees(stored, tensor, rows):
                return f"has a bias that {place.name('bias')} is not, in the order of its weight's rows"
        return ""

    # --- What is said of it -------------------------------------------------------------------------------------------

    def _lines(self, module: str, places: tuple[Place, ...]) -> Iterator[MatchedTensor]:
        weights = weights_of(self._checkpoint, module)
        parameter = " and ".join(weights.keys) if weights else module
        for place in places:
            tensor = place.name("weight") if place.name("weight") in self._gguf.tensors else "token_embd.weight"
            yield MatchedTensor(tensor, parameter, _how(place))

    def _alike(self) -> Iterator[str]:
        """The modules of the checkpoint that are called as touched ones are, but for the number of their layer."""
        touched = {across_layers(module) for module in self._modules}
        for key, stored in self._checkpoint.tensors.items():
            module = key.removesuffix(".weight")
            if module != key and len(stored.shape) > 1 and across_layers(module) in touched and self._is_served(module):
                yield module

    def _is_served(self, module: str) -> bool:
        """Whether a module is of a layer that the GGUF has: not of those that predict further."""
        layer = layer_of(module)
        return layer is None or layer in self._gguf.by_layer


def _needs_table(config: AdapterConfig | None) -> str:
    """Why numbers alone don't tell what an adapter does to its base; nothing where they do."""
    if config is None:
        return ""
    if config.layer_replication:
        return "is in replicated layers, which need a table"
    method = peft_method(config.peft_type)
    # Some of them go by the order of modules, which no checkpoint has.
    return f"is changed by {method.name}, which needs a table" if method and method.needs_peft else ""


def _architecture(base: BaseModel) -> Architecture:
    """What is known of an architecture without a table: with a head of its own in the file, the loader reads one."""
    return Architecture(base.model_type, {}, Graph(reads_output=not base.tied), Config(False, {}), Metadata({}))


def _last_number(module: str) -> int:
    return numbers_in(f"{module}.")[-1]


def _rows(place: Place, n: int) -> Indices:
    return indices(order(place.rows, n, {}), n)


def _claimed_twice(places: Mapping[str, tuple[Place, ...]]) -> Iterator[tuple[str, str]]:
    """The modules whose numbers are another touched one's, too: both were found in one place."""
    owners: dict[tuple[str, int | None], str] = {}
    for module, its in places.items():
        for place in its:
            owner = owners.setdefault((place.tensor, place.expert), module)
            if owner != module:
                yield module, f"has the numbers of {owner}: both are in {place.tensor}.weight"


def _how(place: Place) -> str:
    parts = []
    if place.stacked:
        parts.append(f"each head's rows {'turned round' if place.stacked == 'turned' else 'as a matrix'}: {place.rows}")
    elif len(place.shape) == 3:
        parts.append("of each expert")
    elif place.expert is not None:
        parts.append(f"matrix {place.expert} of a stack")
    parts += ["transposed"] if place.transposed else []
    parts += [f"rows {place.rows}"] if place.rows and not place.stacked else []
    parts += [f"columns {place.columns}"] if place.columns else []
    parts += [f"{place.add:+g}"] if place.add else []
    return ", ".join(parts) or "as it is"
