"""The tensor proof of a hosted model: an untied Gemma in a graph of llama.cpp that has another layout.

What each tensor of the host must hold is put together here from PEFT's weights, densely and in float64, by formulas of
their own: a layout that conversion shared would prove its own mistake. The mathematics is told in the modules of
converter/plan/rehost. All of a tensor is compared, the zeros between and behind Gemma's weights too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from converter.errors import ConverterError
from converter.read.base_model import BaseModel
from converter.read.module_paths import EMBEDDING, HEAD
from converter.verify.gguf_weights import Weights, weights_of
from converter.verify.reference import Reference, Rows
from converter.verify.rounding import has_bound, rounding_bound
from converter.verify.tensors import KEPT_AT_LEAST, KEPT_AT_MOST, Progress, TensorCheck, TensorProof

HOST_KEY: Final = "adapter_to_gguf.host"

# Vectors are rounded twice, once in the base and once scaled.
_VECTOR_ULPS: Final = 4.0

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

# Rows of a tensor as they must be, with the adapter or without it.
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
        """Each kind of tensor of one of Gemma's layers, with PEFT's parameter behind it."""
        for kind in (*_LINEAR, *_NORMS[self.of]):
            yield kind, str(self.named(kind, layer))

    def named(self, kind: str, layer: int) -> str | None:
        """PEFT's parameter behind a tensor of a layer."""
        module = {**_LINEAR, **_NORMS[self.of]}.get(kind)
        return f"model.layers.{layer}.{module}.weight" if module else None

    def plain(self, parameter: str, factor: float = 1.0) -> Want:
        """The parameter itself, times a factor."""
        return Want(lambda rows, served: factor * self.weight(parameter, rows, served), (parameter,), factor == 1.0)


def is_hosted(model: BaseModel) -> bool:
    """Whether a GGUF says that it hosts another architecture."""
    return bool(model.shards) and HOST_KEY in model.shards[0].kv


def prove_hosted(
    deployed: BaseModel, base: BaseModel | None, reference: Reference, progress: Progress
) -> TensorProof:
    """Compare every tensor of a hosted model with what PEFT's weights make of it.

    Raises ConverterError for a host that is not known here.
    """
    from converter.verify.host_layouts import HOSTS
    from converter.verify.host_wide import wide_relations

    stored, original = weights_of(deployed), weights_of(base) if base else {}
    host = str(deployed.shards[0].kv[HOST_KEY])
    if host not in HOSTS:
        raise ConverterError(f"{deployed.path}: hosted as {host!r}, which is not known here")
    gemma = HostedGemma(deployed, reference, stored)
    wanted = dict(HOSTS[host](gemma))
    checks = []
    for done, (name, want) in enumerate(wanted.items()):
        progress(done, len(wanted))
        checks.append(_check(name, want, gemma, original))
    checks += wide_relations(gemma) if host == "wide" else ()
    checks += [TensorCheck(name, "nothing", fault=_EXCESS) for name in stored if name not in wanted]
    checks += [TensorCheck(name, "nothing", fault=f"serves no tensor of {host}") for name in _unserved(wanted, gemma)]
    return TensorProof(tuple(checks))


_EXCESS: Final = "is in excess; the host has no such tensor"


def _unserved(wanted: Mapping[str, Want], gemma: HostedGemma) -> Iterator[str]:
    served = {parameter for want in wanted.values() for parameter in want.parameters}
    return (name for name in gemma.reference.names if name not in served)


def _check(name: str, want: Want, gemma: HostedGemma, original: Mapping[str, Weights]) -> TensorCheck:
    if name not in gemma.stored:
        return TensorCheck(name, "nothing", fault="is missing")
    weights = gemma.stored[name]
    type_name = weights.tensor.type.name
    touched = not gemma.reference.touched.isdisjoint(want.parameters)
    if want.copies and not touched and name in original and weights.is_identical(original[name]):
        return TensorCheck(name, "bytes", type_name)
    return _compare(name, want, weights, touched=touched)


def _compare(name: str, want: Want, weights: Weights, *, touched: bool) -> TensorCheck:
    type_name, worst, held, norm2 = weights.tensor.type.name, 0.0, 0.0, 0.0
    for rows in weights.blocks():
        stored = weights.values(rows)
        served = want.rows(rows, True).reshape(len(stored), -1)  # noqa: FBT003  with the adapter
        stored = stored.reshape(len(stored), -1)
        if stored.shape != served.shape:
            fault = f"has rows of {stored.shape[1]}, wanted {served.shape[1]}"
            return TensorCheck(name, "nothing", type_name, touched, fault=fault)
        if has_bound(type_name):
            bound = rounding_bound(served, type_name) * (_VECTOR_ULPS if len(weights.tensor.shape) == 1 else 1.0)
            worst = float(np.maximum(worst, (np.abs(stored - served) / bound).max()))  # keeps NaN
        if touched:
            base = want.rows(rows, False).reshape(served.shape)  # noqa: FBT003  without it
            held += float(((stored - base) * (served - base)).sum())
            norm2 += float(((served - base) ** 2).sum())
    error, kept = worst if has_bound(type_name) else None, held / norm2 if norm2 > 0 else None
    return TensorCheck(name, "numbers", type_name, touched, error, kept, _fault(type_name, error, kept))


def _fault(type_name: str, error: float | None, kept: float | None) -> str | None:
    if error is not None and not error <= 1:  # NaN is a fault
        return f"is off from what PEFT's weights make of it by {error:.4g} times what {type_name} allows"
    if kept is not None and not KEPT_AT_LEAST <= kept <= KEPT_AT_MOST:
        return f"holds {kept:.3g} of the adapter's delta in {type_name}, wanted 1"
    return None


def constant(value: float, *shape: int) -> Want:
    """One value everywhere; ``shape`` is that of a row."""
    return Want(lambda rows, _: np.full((rows.stop - rows.start, *shape), value))


def whole(weights: Weights) -> np.ndarray:
    """A tensor's numbers at once, a vector's as one row."""
    return weights.values(slice(0, weights.n_rows))


