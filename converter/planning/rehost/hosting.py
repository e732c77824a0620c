"""Which host runs an untied Gemma, its files, and what it costs.

The oldest builds are those that ran a hosted model with the right logits (llama.cpp's numbering, b1234).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from converter.derive.base_model import BaseModel
from converter.errors import ConverterError
from converter.planning.conversion_plan import NewKeyValue, PlannedFile
from converter.planning.rehost import gemma3, grok, spark2_5, wide
from converter.planning.rehost.gemma import Gemma, gemma_of
from converter.planning.rehost.head_delta import head_delta, rank_of
from converter.planning.rehost.layout import Layout, relaid_tensors
from converter.sources import CopiedBytes, Delta


@dataclass(frozen=True, slots=True)
class Host:
    """An architecture of llama.cpp that takes any head, and how a Gemma is laid out for it."""

    name: str
    oldest_build: Mapping[str, str]  # by the architecture that is hosted
    layouts: Callable[[Gemma], Mapping[str, Layout]]
    model: Callable[[PlannedFile, Gemma, str | None], PlannedFile]


class Hosted(NamedTuple):
    """The files of a deployment in a host, and what whoever serves them has to know."""

    files: tuple[PlannedFile, ...]
    notes: tuple[str, ...]


_ANY_HEAD: Final[Mapping[str, Host]] = {
    "gemma3": Host("gemma3", {"gemma": "b7551"}, gemma3.layouts, gemma3.model),
    "spark2_5": Host("spark2_5", {"gemma": "b11063"}, spark2_5.layouts, spark2_5.model),
    "grok": Host("grok", {"gemma2": "b6628"}, grok.layouts, grok.model),
}
_WIDE_BUILDS: Final[Mapping[str, str]] = {"gemma": "b4798", "gemma2": "b5671"}
# An embedding whose largest row is this many times the usual one fills all others with what makes them as long.
_OUTLIER: Final = 8.0


def hosted_model(file: PlannedFile, base: BaseModel, host: str, outtype: str | None) -> Hosted:
    """A planned merged model with a head of its own, in a host; ``host`` may be auto.

    Raises ConverterError where the host can't have this model.
    """
    gemma = gemma_of(base, file)
    if host == "auto" and _is_tied(file):
        return Hosted((_without_head(file),), ("the adapter leaves head and embedding one: nothing was untied",))
    asks = host == "wide" or (host == "auto" and gemma.architecture == "gemma2")
    delta = head_delta(file) if asks else None
    chosen = _chosen(host, gemma, delta)
    if chosen == "native":
        return Hosted((file,), _NATIVE_NOTES)
    if chosen == "wide":
        return _wide_model(file, gemma, outtype, delta)
    model = _recorded(_host(chosen, gemma).model(file, gemma, outtype), chosen, gemma)
    return Hosted((model,), tuple(_notes(chosen, gemma, file, model)))


def _is_tied(file: PlannedFile) -> bool:
    """Whether the model has one end, or two that are one tensor of the base, byte for byte."""
    ends = [tensor.source for tensor in file.tensors if tensor.name in ("output.weight", "token_embd.weight")]
    return len(ends) == 1 or (isinstance(ends[0], CopiedBytes) and ends[0] == ends[1])


def _without_head(file: PlannedFile) -> PlannedFile:
    return file._replace(tensors=tuple(tensor for tensor in file.tensors if tensor.name != "output.weight"))


def hosted_lora(untied: PlannedFile, lora: PlannedFile, base: BaseModel, host: str, outtype: str | None) -> Hosted:
    """A planned untied base and the LoRA for it, in a host. Raises ConverterError where the host can't have them."""
    gemma = gemma_of(base, untied)
    chosen = {"gemma": "gemma3", "gemma2": "grok"}[gemma.architecture] if host == "auto" else host
    if chosen == "native":
        return Hosted((untied, lora), _NATIVE_NOTES)
    if chosen == "wide":
        raise ConverterError("--host wide writes the head's delta into the model: use it with --to model")
    used = _host(chosen, gemma)
    model = _recorded(used.model(untied, gemma, outtype), chosen, gemma)
    tensors = tuple(relaid_tensors(lora, used.layouts(gemma), outtype))
    architecture = NewKeyValue("general.architecture", chosen)
    others = (entry for entry in lora.key_values if entry.key != architecture.key)
    factors = lora._replace(tensors=tensors, key_values=(architecture, *others))
    return Hosted((model, factors), tuple(_notes(chosen, gemma, untied, model)))


def _chosen(host: str, gemma: Gemma, delta: tuple[Delta, ...] | None) -> str:
    if host != "auto":
        return host
    if gemma.architecture == "gemma":
        return "gemma3"
    return "wide" if delta and wide.fits(gemma, rank_of(delta)) else "grok"


def _host(name: str, gemma: Gemma) -> Host:
    host = _ANY_HEAD.get(name)
    if host is None or gemma.architecture not in host.oldest_build:
        raise ConverterError(f"--host {name} doesn't run {gemma.architecture}; leave --host out")
    return host


def _wide_model(file: PlannedFile, gemma: Gemma, outtype: str | None, delta: tuple[Delta, ...] | None) -> Hosted:
    if not delta:
        raise ConverterError("--host wide needs a head that is the embedding plus a LoRA; leave --host out")
    basis = wide.measured_head(file, gemma, delta)
    model = _recorded(wide.model(file, gemma, outtype, delta, basis), "wide", gemma)
    ratio = (basis.largest_norm2 / basis.mean_norm2) ** 0.5
    outliers = (
        (f"one embedding is {ratio:.0f} times as long as usual: below F32 this host loses precision by that",)
        if ratio > _OUTLIER
        else ()
    )
    return Hosted((model,), (*_notes("wide", gemma, file, model), *outliers))


_NATIVE_NOTES: Final = ("output.weight as it is: stock llama.cpp refuses this file, only a patched runtime reads it",)


def _recorded(model: PlannedFile, host: str, gemma: Gemma) -> PlannedFile:
    entries = (
        NewKeyValue("adapter_to_gguf.host", host),
        NewKeyValue("adapter_to_gguf.host.of", gemma.architecture),
        NewKeyValue("adapter_to_gguf.host.oldest_build", _oldest_build(host, gemma)),
    )
    return model._replace(key_values=(*model.key_values, *entries))


def _oldest_build(host: str, gemma: Gemma) -> str:
    return _WIDE_BUILDS[gemma.architecture] if host == "wide" else _ANY_HEAD[host].oldest_build[gemma.architecture]


def _notes(host: str, gemma: Gemma, plain: PlannedFile, hosted: PlannedFile) -> Iterator[str]:
    size = f"{hosted.nbytes / plain.nbytes:.2f} times the size"
    cache = f"{_kv_cache(host, gemma):.2f} times the KV cache"
    yield (
        f"hosted as {host}: llama.cpp's {gemma.architecture} has no head of its own; {size} of a plain untied file, "
        f"{cache}; needs llama.cpp {_oldest_build(host, gemma)} or newer"
    )
    if host == "grok":
        yield f"its attention is global, {gemma.architecture}'s is not: the context ends at {gemma.window} tokens"
    if host == "gemma3":
        yield "quantise it further only with llama-quantize --token-embedding-type bf16"


def _kv_cache(host: str, gemma: Gemma) -> float:
    match host:
        case "grok":
            return grok.heads_of(gemma).n_head_kv / gemma.n_head_kv
        case "wide":
            return (gemma.n_layer + wide.n_new_layers(gemma)) / gemma.n_layer
        case _:  # gemma3 and spark2_5 have Gemma's own heads and layers
            return 1.0
