"""What the proof of a hosted model stands on: the file, PEFT's weights under Gemma's names, and wants of tensors."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING
from converter.errors import ConverterError
from converter.verification.gguf_weights import Weights
from converter.verification.peft_layers import Rows
from converter.verification.reference import Reference

HOST_KEY: Final = "adapter_to_gguf.host"

_LINEAR: Final = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# The Hugging Face norm behind each GGUF norm.
_NORMS: Final[Mapping[str, Mapping[str, str]]] = {
    "gemma": {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"},
    "gemma2": {
        "attn_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}

# Rows of a tensor as they must be, with the adapter or without it: float64 (n_rows, n_columns), of a vector (n_rows,).
Expected = Callable[[slice, bool], np.ndarray]


@dataclass(frozen=True, slots=True)
class Want:
    """What one tensor must hold, and the parameters of PEFT's that it serves.

    ``copies`` says that the host leaves them as they are: the base's own bytes will do.
    """

    rows: Expected
    parameters: tuple[str, ...] = ()
    copies: bool = False


@dataclass(frozen=True, slots=True)
class HostedGemma:
    """A hosted file and the PEFT model that it is to serve."""

    model: BaseModel
    reference: Reference
    stored: Mapping[str, Weights]

    def number(self, key: str) -> float:
        """A number of the host's metadata."""
        architecture = self.model.model_type
        value = self.model.shards[0].kv.get(f"{architecture}.{key}")
        if not isinstance(value, int | float):
            raise ConverterError(f"{self.model.path}: {architecture}.{key} is {value!r}, wanted a number")
        return value

    @property
    def host(self) -> str:
        """The host's name."""
        return str(self.model.shards[0].kv[HOST_KEY])

    @property
    def of(self) -> str:
        """The architecture that is hosted."""
        return str(self.model.shards[0].kv.get(f"{HOST_KEY}.of"))

    @property
    def hidden(self) -> int:
        """Gemma's own hidden size."""
        return self.reference.shape(f"{EMBEDDING}.weight")[1]

    @property
    def n_layer(self) -> int:
        """Gemma's own layers."""
        return sum(name.endswith(".mlp.up_proj.weight") for name in self.reference.names)

    def weight(self, parameter: str, rows: Rows, served: bool) -> np.ndarray:  # noqa: FBT001  which of two weights
        """Rows of PEFT's parameter, or of the base's; llama.cpp multiplies by a norm, Gemma by 1 + norm."""
        values = (self.reference.weight if served else self.reference.base_weight)(parameter, rows)
        return values + 1.0 if values.ndim == 1 else values

    def all(self, parameter: str) -> np.ndarray:
        """All rows of PEFT's parameter."""
        return self.weight(parameter, slice(None), served=True)

    def layer(self, layer: int) -> Iterator[tuple[str, str]]:
        """Each stem of tensor of one of Gemma's layers, with PEFT's parameter behind it."""
        for stem in (*_LINEAR, *_NORMS[self.of]):
            yield stem, str(self.named(stem, layer))

    def named(self, stem: str, layer: int) -> str | None:
        """PEFT's parameter behind a tensor of a layer."""
        module = {**_LINEAR, **_NORMS[self.of]}.get(stem)
        return f"model.layers.{layer}.{module}.weight" if module else None

    def plain(self, parameter: str, factor: float = 1.0) -> Want:
        """The parameter itself, times a factor."""
        return Want(lambda rows, served: factor * self.weight(parameter, rows, served), (parameter,), factor == 1.0)


def constant(value: float, *shape: int) -> Want:
    """One value everywhere; ``shape`` is that of a row."""
    return Want(lambda rows, _: np.full((rows.stop - rows.start, *shape), value))


def whole(weights: Weights) -> np.ndarray:
    """A tensor's numbers at once, a vector's as one row."""
    return weights.values(slice(0, weights.n_rows))
