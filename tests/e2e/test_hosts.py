"""Untied heads of Gemma 1 and 2, each in every host, in real llama.cpp against untied PEFT.

The tiny models are shaped like the real ones: one key head (or half as many as heads), heads wider than the hidden
size, soft caps, a window of 8 tokens and sequences of 32. grok's attention is global: it is held to its window.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import pytest

from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment, Quantize
from converter.errors import ConverterError
from converter.planning.conversion_plan import ConversionPlan, PlannedFile
from converter.planning.quantised import quantised
from converter.planning.rehost.hosting import hosted_model
from converter.read.gguf_header import read_gguf_header
from converter.sources import Merged
from converter.verification.llama_cpp import PROOF, LlamaCpp, LlamaCppFailed, Settings
from converter.writing.gguf_file import write_gguf
from fixtures.adapters import saved_logits, tiny_adapter
from fixtures.measure import kl
from fixtures.tiny import HOSTED, N_VOCAB, WINDOW, TinyModel, token_sequences
from fixtures.trained_tokenizers import write_byte_level

pytestmark = pytest.mark.llama

HOSTS = {"gemma": ("gemma3", "spark2_5", "wide"), "gemma2": ("wide", "grok")}
CASES = [(name, host) for name in HOSTS for host in HOSTS[name]]
TOKEN_BY_TOKEN = Settings(PROOF.model, MappingProxyType({**PROOF.context, "n_ubatch": 1}))
LARGEST_RATIO = {"f32": 1e-4, "f16": 1e-4, "bf16": 0.01, "q8_0": 0.01}
N_WINDOW = 8
assert WINDOW["sliding_window"] == N_WINDOW


@pytest.mark.parametrize(("case", "outtype"), list(product(CASES, LARGEST_RATIO)))
@pytest.mark.parametrize("settings", [PROOF, TOKEN_BY_TOKEN], ids=["batch", "token by token"])
def test_a_hosted_head_is_exact(
    case: tuple[str, str], outtype: str, settings: Settings, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    name, host = case
    adapter = tiny_adapter("lm_head", TinyModel(name))
    file = _written(TinyModel(name), adapter, Deployment("model", True, outtype, host), tmp_path)
    assert _ratio(llama_cpp, adapter, file, host, settings) <= LARGEST_RATIO[outtype]


@pytest.mark.parametrize(("case", "outtype"), list(product(CASES, LARGEST_RATIO)))
def test_a_head_without_its_delta_is_found_out(
    case: tuple[str, str], outtype: str, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    name, host = case
    base, adapter = TinyModel(name), tiny_adapter("lm_head", TinyModel(name))
    file = _without_head(base, adapter, Deployment("model", True, outtype, host), tmp_path)
    assert _ratio(llama_cpp, adapter, file, host) > 10 * LARGEST_RATIO[outtype]


@pytest.mark.parametrize("recipe", ["embed_and_head", "embed_tokens", "lm_head_without_base_layer"])
@pytest.mark.parametrize(("name", "host"), CASES)
def test_both_ends_in_every_host(name: str, host: str, recipe: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    adapter = tiny_adapter(recipe, TinyModel(name))
    file = _written(TinyModel(name), adapter, Deployment("model", True, None, host), tmp_path)
    assert _ratio(llama_cpp, adapter, file, host) <= 1e-4


# Adapter and the host that is chosen for it.
CHOICES = [
    ("gemma", "lm_head", "gemma3"),
    ("gemma", "saved_lm_head", "gemma3"),
    ("gemma2", "lm_head", "wide"),
    ("gemma2", "saved_lm_head", "grok"),
    ("gemma2", "foreign_base_layer", "grok"),
    ("gemma2", "saved_embed_tokens", "grok"),
]


@pytest.mark.parametrize(("name", "recipe", "host"), CHOICES)
def test_the_host_follows_the_head(name: str, recipe: str, host: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    adapter = tiny_adapter(recipe, TinyModel(name))
    file = _written(TinyModel(name), adapter, Deployment("model", untie=True), tmp_path)
    metadata = read_gguf_header(file).kv
    assert (metadata["adapter_to_gguf.host"], metadata["adapter_to_gguf.host.of"]) == (host, name)
    assert _ratio(llama_cpp, adapter, file, host) <= 1e-4


@pytest.mark.parametrize(("name", "recipe"), list(product(HOSTS, ("plain", "tied_pair"))))
def test_ends_that_stay_one_need_no_host(name: str, recipe: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    adapter = tiny_adapter(recipe, TinyModel(name))
    file = _written(TinyModel(name), adapter, Deployment("model", untie=True), tmp_path)
    assert read_gguf_header(file).kv["general.architecture"] == name
    assert _ratio(llama_cpp, adapter, file, "native") <= 1e-4


@pytest.mark.parametrize("recipe", ["lm_head", "embed_and_head", "patterns"])
@pytest.mark.parametrize(("name", "host"), [("gemma", "gemma3"), ("gemma", "spark2_5"), ("gemma2", "grok")])
def test_a_lora_follows_its_host(name: str, host: str, recipe: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    base, adapter = TinyModel(name), tiny_adapter(recipe, TinyModel(name))
    conversion = _plan(base, adapter, Deployment("lora", True, None, host))
    untied, lora = write(conversion, tmp_path / "lora")
    assert _ratio(llama_cpp, adapter, untied.path, host, lora=lora.path) <= 1e-4


@pytest.mark.parametrize(
    ("case", "to"),
    [(case, to) for case, to in product(CASES, ("model", "lora")) if (case[1], to) != ("wide", "lora")],
)
def test_a_huggingface_base_is_hosted(
    case: tuple[str, str], to: Literal["lora", "model"], llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    name, host = case
    shutil.copytree(TinyModel(name).hf, tmp_path / "base")
    base = read_base_model(write_byte_level("gpt-2", tmp_path / "base", N_VOCAB))
    directory = tiny_adapter("embed_and_head", TinyModel(name))
    adapter = read_adapter(directory)
    model, *lora = write(plan(adapter, base, Deployment(to, True, None, host)), tmp_path / "out.gguf")
    assert _ratio(llama_cpp, directory, model.path, host, lora=lora[0].path if lora else None) <= 1e-4


@pytest.mark.parametrize("recipe", ["lm_head", "saved_lm_head"])
def test_grok_repeats_key_heads_and_fills_up_with_zeros(recipe: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    base = TinyModel("gemma2-heads")
    adapter = tiny_adapter(recipe, base)
    file = _written(base, adapter, Deployment("model", True, None, "grok"), tmp_path)
    metadata = read_gguf_header(file).kv
    assert (metadata["grok.attention.head_count"], metadata["grok.attention.head_count_kv"]) == (5, 5)
    assert _ratio(llama_cpp, adapter, file, "grok") <= 1e-4


def test_grok_ends_at_the_window(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    adapter = tiny_adapter("lm_head", TinyModel("gemma2"))
    file = _written(TinyModel("gemma2"), adapter, Deployment("model", True, None, "grok"), tmp_path)
    assert read_gguf_header(file).kv["grok.context_length"] == N_WINDOW
    # What lies beyond is another model's.
    assert _ratio(llama_cpp, adapter, file, "none") > 0.01


@pytest.mark.parametrize("name", HOSTS)
def test_stock_llama_cpp_refuses_the_native_form(name: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    adapter = tiny_adapter("lm_head", TinyModel(name))
    file = _written(TinyModel(name), adapter, Deployment("model", True, None, "native"), tmp_path)
    with pytest.raises(LlamaCppFailed):
        llama_cpp.logits(file, [[1]])


@pytest.mark.parametrize(
    ("name", "recipe", "deployment"),
    [
        ("gemma", "lm_head", Deployment("model", True, None, "grok")),
        ("gemma2", "lm_head", Deployment("model", True, None, "gemma3")),
        ("gemma2", "saved_lm_head", Deployment("model", True, None, "wide")),
        ("gemma2", "lm_head", Deployment("lora", True, None, "wide")),
        ("llama", "lm_head", Deployment("model", True, None, "wide")),
    ],
)
def test_an_impossible_host_is_refused(name: str, recipe: str, deployment: Deployment) -> None:
    with pytest.raises(ConverterError, match="--host"):
        _plan(TinyModel(name), tiny_adapter(recipe, TinyModel(name)), deployment)


BASE_TYPES = [("F16", 1e-4), ("BF16", 1e-4), ("Q8_0", 0.01)]


@pytest.mark.parametrize(("case", "base_type"), list(product(CASES, BASE_TYPES)))
def test_every_base_type_is_hosted(
    case: tuple[str, str], base_type: tuple[str, float], llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    (name, host), (stored, largest) = case, base_type
    base = TinyModel(name, outtype=stored)
    adapter = tiny_adapter("lm_head", base)
    file = _written(base, adapter, Deployment("model", True, None, host), tmp_path)
    assert _ratio(llama_cpp, adapter, file, host) <= largest


# Effect ratios after quantising; measured: docs/hosts.md.
QUANTISED = [("Q8_0", 0.01), ("Q6_K", 0.02), ("Q4_K_M", 0.25)]
LONG = [("gemma-long", "gemma3"), ("gemma-long", "spark2_5"), ("gemma-long", "wide")]
LONG += [("gemma2-long", "wide"), ("gemma2-long", "grok")]


@pytest.mark.parametrize(("case", "limit"), list(product(LONG, QUANTISED)))
def test_a_hosted_head_survives_quantising(
    case: tuple[str, str],
    limit: tuple[str, float],
    llama_cpp: LlamaCpp,
    tmp_path: Path,
    *,
    record_property: Callable[[str, object], None],
) -> None:
    """That the bytes are llama-quantize's own is seen to in test_quantised.py."""
    (name, host), (file_type, largest) = case, limit
    base, adapter = TinyModel(name), tiny_adapter("lm_head", TinyModel(name))
    assert name in HOSTED
    deployment = Deployment("model", True, None, host, Quantize(file_type, least_kept=0))
    made = (make(base, adapter, deployment, tmp_path) for make in (_written, _without_head))
    ratios = [_ratio(llama_cpp, adapter, file, host) for file in made]
    record_property("ratio", f"{ratios[0]:.3g}, without the head's delta {ratios[1]:.3g}")
    assert ratios[0] <= largest < ratios[1]


# --- Helpers ----------------------------------------------------------------------------------------------------------


def _plan(base: TinyModel, adapter: Path, deployment: Deployment) -> ConversionPlan:
    return plan(read_adapter(adapter), read_base_model(base.gguf), deployment)


def _written(base: TinyModel, adapter: Path, deployment: Deployment, directory: Path) -> Path:
    conversion = _plan(base, adapter, deployment)
    (written,) = write(conversion, directory / "model.gguf")
    return written.path


def _without_head(base: TinyModel, adapter: Path, deployment: Deployment, directory: Path) -> Path:
    """The same hosted model, its head's delta multiplied by (almost) nothing before it is hosted."""
    outtype = "f16" if deployment.quantize else deployment.outtype
    file = _plan(base, adapter, replace(deployment, host="native", outtype=outtype, quantize=None)).files[0]
    tensors = tuple(
        t._replace(source=_faded(t.source)) if t.name == "output.weight" and isinstance(t.source, Merged) else t
        for t in file.tensors
    )
    assert tensors != file.tensors
    spoilt: PlannedFile = file._replace(tensors=tensors)
    model = read_base_model(base.gguf)
    (hosted,) = hosted_model(spoilt, model, deployment.host or "auto", outtype).files
    hosted = quantised(hosted, deployment.quantize) if deployment.quantize else hosted
    # Not by convert.write, which refuses a file that keeps nothing of a delta.
    with (directory / "spoilt.gguf").open("wb") as out:
        write_gguf(hosted, out, lambda _: None)
    return directory / "spoilt.gguf"


def _faded(source: Merged) -> Merged:
    return source._replace(deltas=tuple(delta._replace(scaling=1e-6 * delta.scaling) for delta in source.deltas))


def _ratio(
    llama_cpp: LlamaCpp,
    adapter: Path,
    file: Path,
    host: str,
    settings: Settings = PROOF,
    *,
    lora: Path | None = None,
) -> float:
    """KL(PEFT || hosted) / KL(PEFT || base); grok up to its window."""
    n = N_WINDOW if host == "grok" else None
    base, peft = (logits[:, :n] for logits in saved_logits(adapter))
    sequences = [sequence[:n] for sequence in token_sequences()]
    served = np.stack(llama_cpp.logits(file, sequences, lora, settings=settings))
    return kl(peft, served) / kl(peft, base)
