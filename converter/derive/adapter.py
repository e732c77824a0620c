"""A PEFT adapter as data: what its tensors are, its LoRA pairs and their scalings. No tensor bytes are read.

Key layout: ``get_peft_model_state_dict`` in peft/utils/save_and_load.py (PEFT 0.21.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from converter.derive.adapter_keys import Role, foreign_key
from converter.derive.adapter_tensors import AdapterTensor, is_expert_parameter, tensors_of
from converter.derive.module_paths import EMBEDDING, HEAD, tower_of
from converter.derive.patterns import Patterns
from converter.errors import ConverterError
from converter.read.adapter_config import AdapterConfig
from converter.read.adapter_files import Fault, read_adapter_files
from converter.read.safetensors_header import SafetensorsHeader
from converter.read.tokenizer import Tokenizer, read_tokenizer

if TYPE_CHECKING:
    from converter.read.hub_address import Address, OnHub

_FACTORS: Final[tuple[tuple[Role, Role], ...]] = (
    ("lora_A", "lora_B"),
    ("lora_embedding_A", "lora_embedding_B"),
)


class LoraPair(NamedTuple):
    """The two factors of one module's delta, scaling * B @ A, and what goes with them.

    A linear module has lora_A (r, in) and lora_B (out, r). An embedding has lora_embedding_A (r, n_rows) and
    lora_embedding_B (width, r), and its delta is the transpose, (n_rows, width): peft/tuners/lora/layer.py.
    A parameter of ``n_experts`` fused experts has lora_A (n_experts * r, in), expert by expert, and lora_B
    (out, r * n_experts), whose columns go round all experts for each rank (``ParamWrapper.get_delta_weight``). Where
    the pair ``is_turned``, lora_A has the out side of experts and lora_B the in side (derive/expert_layout.py).
    ``magnitude`` is DoRA's vector, ``b_bias`` what lora_bias adds to the module's bias, times the scaling.
    """

    module: str
    a: AdapterTensor
    b: AdapterTensor
    scaling: float
    n_experts: int = 1
    magnitude: AdapterTensor | None = None
    b_bias: AdapterTensor | None = None
    is_turned: bool = False

    @property
    def is_embedding(self) -> bool:
        """Whether the factors are an embedding's."""
        return self.a.role == "lora_embedding_A"

    @property
    def rank(self) -> int:
        """r, as lora_A's shape states it."""
        return self.a.tensor.shape[0] // self.n_experts if self.a.tensor.shape else 0

    @property
    def is_well_shaped(self) -> bool:
        """Whether both factors are matrices of one rank, so that their product has a shape."""
        a, b = self.a.tensor.shape, self.b.tensor.shape
        return len(a) == len(b) == 2 and a[0] == b[1] > 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The delta's shape, (out, in) or (n_experts, out, in); none where a factor is no matrix."""
        if not len(self.a.tensor.shape) == len(self.b.tensor.shape) == 2:
            return ()
        n_in, n_out = self.a.tensor.shape[1], self.b.tensor.shape[0]
        if self.n_experts > 1:
            return (self.n_experts, n_in, n_out) if self.is_turned else (self.n_experts, n_out, n_in)
        return (n_in, n_out) if self.is_embedding else (n_out, n_in)

    @property
    def tensors(self) -> tuple[AdapterTensor, ...]:
        """Every tensor of the pair."""
        return tuple(tensor for tensor in (self.a, self.b, self.magnitude, self.b_bias) if tensor)


class TokenRows(NamedTuple):
    """Rows of an embedding or a head that replace the base's (trainable_token_indices): row i is token indices[i]."""

    module: str
    tensor: AdapterTensor
    indices: tuple[int, ...]


class Origin(NamedTuple):
    """The adapter that another one stands for, and which of its keys went into each key of that other."""

    adapter: "Adapter"
    keys: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)  # no slots: two dozen rules ask for the pairs, which are put together once
class Adapter:
    """A PEFT adapter: the directory, its config and headers, every tensor, and what could not be read.

    ``initial`` is the adapter as it was before training, where the base was changed by it (PiSSA, OLoRA): what is
    served is the base, plus this adapter's deltas, minus the initial one's. ``origin`` is the adapter of another PEFT
    method that this one is the equal of. ``unchanged`` are the keys of tensors that are saved whole and hold the base's
    own numbers, as far as somebody compared them (values/unchanged.py). ``left_out`` are the tensors of a multimodal
    model's other parts, where the user said that the text part is to be served without them (``text_part``).
    Of one ``on_hub`` the directory holds what was fetched of it, and no numbers.
    """

    path: Path
    config: AdapterConfig | None
    headers: tuple[SafetensorsHeader, ...]
    tensors: tuple[AdapterTensor, ...]
    faults: tuple[Fault, ...]
    index: Mapping[str, str] | None = None  # of a sharded adapter: key to shard file name, as its index states it
    initial: "Adapter | None" = None
    origin: Origin | None = None
    unchanged: frozenset[str] = frozenset()
    left_out: tuple[AdapterTensor, ...] = ()
    on_hub: "OnHub | None" = None

    @property
    def shown_path(self) -> "Path | Address":
        """Where it lies, for people: the directory, or its address on a hub."""
        return self.on_hub.address if self.on_hub else self.path

    def require_numbers(self) -> None:
        """Raise ConverterError where the numbers aren't here."""
        if self.on_hub:
            raise ConverterError(
                f"{self.shown_path}: its numbers were not fetched; download it, and give the directory"
            )

    def says_the_same(self, other: "Adapter") -> bool:
        """Whether config and header of both are the same bytes, and read in one way. False where that isn't known.

        Whatever follows from those alone is then the same for both.
        """
        return (
            self.is_as_read
            and other.is_as_read
            and self.config is not None
            and other.config is not None
            and self.config.raw is other.config.raw  # the readers give one object for the same bytes
            and self.headers[0].states_the_same(other.headers[0])
            and self.renamed == other.renamed
        )

    @property
    def is_as_read(self) -> bool:
        """Whether it is what its config and its one header say, and nothing else."""
        others = (self.faults, self.index, self.initial, self.origin, self.unchanged, self.left_out)
        return len(self.headers) == 1 and not any(others)

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The modules that have tensors, in file order, each once."""
        return tuple(dict.fromkeys(tensor.module for tensor in self.tensors))

    @cached_property
    def patterns(self) -> Patterns | None:
        """The patterns of the config, and what they say of modules."""
        return Patterns(self.config) if self.config else None

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer beside the adapter. Raises ConverterError where the system doesn't let us read it."""
        return read_tokenizer(self.path)

    @cached_property
    def renamed(self) -> dict[str, str]:
        """The keys that are read as others, and those."""
        return {tensor.key: tensor.read_as for tensor in self.tensors if tensor.read_as}

    @property
    def read_with(self) -> tuple[str, ...]:
        """The options of commands by which an adapter in these files is read as this one."""
        is_of_mlx = self.config is not None and self.config.mlx is not None
        renamed = () if is_of_mlx or not self.renamed else ("--rename-keys",)
        return (*renamed, *(("--text-only",) if self.left_out else ()))

    @cached_property
    def by_module(self) -> dict[str, dict[Role, AdapterTensor]]:
        """The tensors of each module by role; of two with one role (rule LO003) the last."""
        result: dict[str, dict[Role, AdapterTensor]] = {}
        for tensor in self.tensors:
            result.setdefault(tensor.module, {})[tensor.role] = tensor
        return result

    @cached_property
    def pairs(self) -> tuple[LoraPair, ...]:
        """The complete LoRA pairs, in file order. A factor without its partner is in no pair (rule LO001)."""
        return tuple(pair for roles in self.by_module.values() for pair in self._pairs_of(roles))

    def _pairs_of(self, roles: dict[Role, AdapterTensor]) -> tuple[LoraPair, ...]:
        return tuple(self._pair(roles, a, b) for a, b in _FACTORS if a in roles and b in roles)

    def _pair(self, roles: dict[Role, AdapterTensor], a: Role, b: Role) -> LoraPair:
        factor = roles[a]
        n_experts, scaled = 1, 0.0
        n_rows = factor.tensor.shape[0] if factor.tensor.shape else 0
        if self.config and self.patterns and n_rows:
            if is_expert_parameter(factor.module):
                n_experts = max(1, n_rows // self.patterns.rank(factor.path))
            scaled = scaling(self.config, self.patterns.alpha(factor.path), n_rows // n_experts)
        magnitude, b_bias = roles.get("lora_magnitude_vector"), roles.get("lora_B.bias")
        return LoraPair(factor.module, factor, roles[b], scaled, n_experts, magnitude, b_bias)

    @cached_property
    def token_rows(self) -> tuple[TokenRows, ...]:
        """The rows of trainable_token_indices, for each module that has some and whose indices the config states."""
        tensors = (tensor for tensor in self.tensors if tensor.role == "trainable_tokens_delta")
        return tuple(
            TokenRows(tensor.module, tensor, indices)
            for tensor in tensors
            if self.config and (indices := token_indices(self.config, tensor))
        )

    @cached_property
    def saved_modules(self) -> tuple[AdapterTensor, ...]:
        """Whole parameters that replace the base's (modules_to_save and its like)."""
        return tuple(tensor for tensor in self.tensors if tensor.role in ("weight", "bias"))

    @property
    def changed_modules(self) -> tuple[AdapterTensor, ...]:
        """Those of ``saved_modules`` that are not known to be the base's own."""
        return tuple(tensor for tensor in self.saved_modules if tensor.key not in self.unchanged)

    @cached_property
    def base_layers(self) -> tuple[AdapterTensor, ...]:
        """Copies of the base's own parameters that PEFT saved beside the LoRA of a head or an embedding."""
        return tuple(tensor for tensor in self.tensors if tensor.role.startswith("base_layer."))

    @cached_property
    def is_tied_pair(self) -> bool:
        """Whether head and embedding carry one delta between them: trained with ensure_weight_tying, LoRA on both.

        PEFT shares the factors but scales each end by its own module's alpha: unequal scales part the ends. So does
        DoRA, whose magnitudes are one for each column of the embedding, and one for each row of the head.
        """
        ends = {pair.module: pair for pair in self.pairs if pair.module in (EMBEDDING, HEAD)}
        tied = self.config is not None and self.config.ensure_weight_tying
        return (
            tied
            and len(ends) == 2
            and ends[EMBEDDING].scaling == ends[HEAD].scaling
            and not any(pair.magnitude for pair in ends.values())
        )

    @cached_property
    def is_saved_pair(self) -> bool:
        """Whether head and embedding are saved whole as the one tensor that they are in a tied base.

        They are with ensure_weight_tying, and where modules_to_save names neither: PEFT then saves the model's own
        two ends (save_embedding_layers), for a resized vocabulary. Named ends it trains apart.
        """
        saved = {t.module: t for t in self.saved_modules if t.role == "weight" and t.module in (EMBEDDING, HEAD)}
        if self.config is None or not saved:
            return False
        named = any(t.path.endswith(name) for t in saved.values() for name in self.config.modules_to_save)
        return len(saved) == 2 and self.config.ensure_weight_tying if named else EMBEDDING in saved


def scaling(config: AdapterConfig, alpha: float, rank: int) -> float:
    """PEFT's factor before B @ A: alpha / r, or alpha / sqrt(r) with rsLoRA (update_layer in lora/layer.py)."""
    return alpha / (sqrt(rank) if config.use_rslora else rank)


def token_indices(config: AdapterConfig, tensor: AdapterTensor) -> tuple[int, ...]:
    """The tokens that trainable_token_indices states for a module; without names they are the embedding's."""
    stated = config.trainable_token_indices
    if isinstance(stated, tuple):
        return stated if tensor.module == EMBEDDING else ()
    named = (indices for name, indices in stated.items() if tensor.path.endswith(name))
    return next(named, ())


def read_adapter(directory: Path, sizes: Mapping[str, int] | None = None, *, on_hub: "OnHub | None" = None) -> Adapter:
    """Read the adapter in ``directory``. A file that is missing or malformed becomes a Fault; nothing is judged here.

    Of one ``on_hub`` there is what was fetched; ``sizes`` are those of its files of weights, which end early here.

    Raises ConverterError, status 2, where the system doesn't let us read a file.
    """
    files = read_adapter_files(directory, sizes or {})
    tensors = tensors_of(files.headers, files.config)
    return Adapter(directory, files.config, files.headers, tensors, files.faults, files.index, on_hub=on_hub)


def with_renamed_keys(adapter: Adapter) -> Adapter:
    """The adapter with each key that PEFT doesn't load read as the one that PEFT would have given it.

    That is on the user's word: PEFT itself serves nothing of such a tensor.
    """

    def name_of(key: str) -> str:
        foreign = foreign_key(key, adapter.config)
        return foreign.name if foreign and foreign.name else key

    return replace(adapter, tensors=tensors_of(adapter.headers, adapter.config, name_of))


def text_part(adapter: Adapter) -> Adapter:
    """The LoRA without what it changes of vision and audio parts; as it is where it changes nothing else.

    That is on the user's word: of a prompt without pictures PEFT computes the same, of one with pictures another thing.
    """
    text = tuple(tensor for tensor in adapter.tensors if tower_of(tensor.module) is None)
    left_out = tuple(tensor for tensor in adapter.tensors if tower_of(tensor.module) is not None)
    is_lora = adapter.config is not None and adapter.config.is_lora
    return replace(adapter, tensors=text, left_out=left_out) if text and left_out and is_lora else adapter
