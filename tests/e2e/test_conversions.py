"""What adapter-to-gguf writes, in real llama.cpp against PEFT, on tiny models of every architecture.

Each deployment of each adapter is exact or refused with its code; nothing lies between. The controls spoil a plan in
one place each, and must be found out.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model

from converter.convert import Refused, plan, write
from converter.diagnostics import MODEL, Deployment, Kind
from converter.plan.conversion_plan import (
    ConversionPlan,
    CopiedBytes,
    MergedRows,
    PlannedTensor,
    StoredRows,
)
from converter.read.adapter import Adapter, read_adapter
from converter.read.base_model import BaseModel, read_base_model
from converter.transforms import IDENTITY
from converter.verify.comparison import kl_divergence, log_softmax
from converter.verify.llama_cpp import LlamaCpp
from converter.verify.reference_base import quiet
from converter.verify.verification import Case, Deployed, DeployedLora, DeployedModel, Verification, verify
from fixtures.adapters import LINEAR, RECIPES, load_base, saved_logits, tiny_adapter
from fixtures.tiny import CONFIGS, TinyModel, token_sequences

pytestmark = pytest.mark.llama

LARGEST_RATIO = 1e-4
TIED_FOR_GOOD = ("gemma", "gemma2")
DEPLOYMENTS: Mapping[Kind, Deployment] = {
    "lora": Deployment("lora"),
    "model": Deployment("model"),
    "untie-lora": Deployment("lora", untie=True),
    "untie-model": Deployment("model", untie=True),
}

# The code that refuses a deployment on a tied base, by recipe. What is not here is exact.
_PARTED: Mapping[Kind, str] = {"lora": "HD001", "model": "HD001"}
REFUSED: Mapping[str, Mapping[Kind, str]] = {
    "lm_head": _PARTED,
    "lm_head_without_base_layer": _PARTED,
    "embed_and_head": _PARTED,
    "foreign_base_layer": {**_PARTED, "untie-lora": "HD008"},
    "embed_tokens": {"lora": "HD003", "model": "HD003"},
    "tied_pair": {"lora": "HD005"},
    "saved_lm_head": dict.fromkeys(("lora", "model", "untie-lora"), "HD002"),
    "saved_embed_tokens": dict.fromkeys(("lora", "model", "untie-lora"), "HD004"),
}


@pytest.mark.parametrize(("name", "recipe"), list(product(CONFIGS, RECIPES)))
def test_every_deployment_is_exact_or_refused(name: str, recipe: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    base = TinyModel(name)
    adapter = tiny_adapter(recipe, base)
    for kind, deployment in DEPLOYMENTS.items():
        code = REFUSED.get(recipe, {}).get(kind)
        if code is None and kind.startswith("untie") and name in TIED_FOR_GOOD:
            code = "GG001"
        if code is None:
            assert _ratio(llama_cpp, adapter, _converted(base, adapter, deployment, tmp_path / kind)) <= LARGEST_RATIO
        else:
            with pytest.raises(Refused) as refused:
                _converted(base, adapter, deployment, tmp_path / kind)
            assert code in refused.value.report.blockers(kind)
            assert not (tmp_path / kind).exists()


@pytest.mark.parametrize("recipe", ["plain", "rslora", "patterns"])
@pytest.mark.parametrize("kind", DEPLOYMENTS)
def test_an_untied_base_needs_no_untying(recipe: str, kind: Kind, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    base = TinyModel("llama", tied=False)
    adapter = tiny_adapter(recipe, base)
    assert _ratio(llama_cpp, adapter, _converted(base, adapter, DEPLOYMENTS[kind], tmp_path / kind)) <= LARGEST_RATIO


@pytest.mark.parametrize("kind", ["lora", "model"])
def test_both_ends_of_an_untied_base_take_their_own_delta(kind: Kind, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    base = TinyModel("llama", tied=False)
    config = LoraConfig(target_modules=[*LINEAR, "embed_tokens", "lm_head"], init_lora_weights=False)
    with quiet():
        model = get_peft_model(load_base(base.hf), config)
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    deployed = _converted(base, tmp_path / "adapter", DEPLOYMENTS[kind], tmp_path / kind)
    assert not list(_verified(llama_cpp, base, tmp_path / "adapter", deployed).failures)


@pytest.mark.parametrize(("recipe", "kind"), list(product(("saved_lm_head", "saved_embed_tokens"), DEPLOYMENTS)))
def test_a_saved_end_of_an_untied_base_needs_a_model(
    recipe: str, kind: Kind, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    base = TinyModel("llama", tied=False)
    adapter = tiny_adapter(recipe, base)
    if kind in MODEL:
        deployed = _converted(base, adapter, DEPLOYMENTS[kind], tmp_path / kind)
        assert _ratio(llama_cpp, adapter, deployed) <= LARGEST_RATIO
    else:
        with pytest.raises(Refused, match="HD010"):
            _converted(base, adapter, DEPLOYMENTS[kind], tmp_path / kind)


@pytest.mark.parametrize(
    ("name", "recipe", "kind"),
    [
        ("llama", "embed_and_head", "untie-model"),
        ("llama", "plain", "lora"),
        ("mistral", "patterns", "model"),
        ("gemma", "tied_pair", "model"),
        ("gemma2", "tied_pair", "model"),
        ("gemma2", "plain_bf16", "lora"),
        ("gemma3", "lm_head", "untie-lora"),
        ("gemma3", "foreign_base_layer", "untie-model"),
        ("qwen2", "tied_pair", "untie-lora"),
        ("qwen2", "embed_tokens", "untie-model"),
        ("qwen3", "saved_lm_head", "untie-model"),
        ("qwen3", "rslora", "lora"),
    ],
)
def test_both_proofs_hold(name: str, recipe: str, kind: Kind, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    base = TinyModel(name)
    adapter = tiny_adapter(recipe, base)
    deployed = _converted(base, adapter, DEPLOYMENTS[kind], tmp_path / kind)
    assert not list(_verified(llama_cpp, base, adapter, deployed).failures)


# Base's type, --outtype, the type of the touched tensors.
TYPES = [
    ("F16", "auto", "F16"),
    ("BF16", "auto", "F16"),
    ("BF16", "as-base", "BF16"),
    ("BF16", "f32", "F32"),
    ("Q8_0", "auto", "Q8_0"),
    ("Q8_0", "f16", "F16"),
    ("F32", "bf16", "BF16"),
    ("F32", "q8_0", "Q8_0"),
]


@pytest.mark.parametrize(("base_type", "outtype", "written"), TYPES)
def test_every_type_is_what_was_asked_and_proven(
    base_type: str, outtype: str, written: str, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    base = TinyModel("llama", outtype=base_type)
    adapter = tiny_adapter("lm_head", base)
    deployment = Deployment("model", untie=True, outtype=outtype)
    deployed = _converted(base, adapter, deployment, tmp_path / "model")
    assert read_base_model(deployed.file).shards[0].by_name["output.weight"].type.name == written
    proof = _verified(llama_cpp, base, adapter, deployed)
    assert not proof.tensors.faults
    assert proof.comparison is not None
    # The tensors are proven to their rounding; the logits of a tiny model feel that rounding ten times as much as a
    # real model's, so they are only held to it being small.
    assert proof.comparison.effect_ratio <= (
        LARGEST_RATIO if written in ("F32", "F16") and base_type == "F32" else 0.02
    )


# --- Controls: each must be found out ---------------------------------------------------------------------------------

Spoil = Callable[[PlannedTensor], PlannedTensor]


def halve_alpha(tensor: PlannedTensor) -> PlannedTensor:
    if not isinstance(tensor.source, MergedRows):
        return tensor
    delta = replace(tensor.source.delta, scaling=tensor.source.delta.scaling / 2)
    return replace(tensor, source=replace(tensor.source, delta=delta))


def skip_row_order(tensor: PlannedTensor) -> PlannedTensor:
    if not isinstance(tensor.source, MergedRows) or not isinstance(tensor.source.delta.left, StoredRows):
        return tensor
    delta = replace(tensor.source.delta, left=replace(tensor.source.delta.left, order=IDENTITY))
    return replace(tensor, source=replace(tensor.source, delta=delta))


def _drop(name: str) -> Spoil:
    def spoil(tensor: PlannedTensor) -> PlannedTensor:
        if tensor.name != name or not isinstance(tensor.source, MergedRows):
            return tensor
        base = tensor.source.base
        return replace(tensor, source=CopiedBytes(base.key, base.tensor))

    return spoil


def _spoilt(conversion: ConversionPlan, spoil: Spoil) -> ConversionPlan:
    file = conversion.files[0]
    tensors = tuple(map(spoil, file.tensors))
    assert tensors != file.tensors
    return replace(conversion, files=(replace(file, tensors=tensors),))


@pytest.mark.parametrize(
    ("spoil", "shows_in_logits"),
    [
        (halve_alpha, True),
        (skip_row_order, True),
        (_drop("output.weight"), True),
        (_drop("blk.1.attn_k.weight"), False),
    ],
    ids=["halved alpha", "skipped row order", "dropped head", "one dropped module"],
)
def test_a_spoilt_conversion_is_found_out(
    spoil: Spoil, shows_in_logits: bool, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    base = TinyModel("llama")
    directory = tiny_adapter("lm_head", base)
    adapter, model = read_adapter(directory), read_base_model(base.gguf)
    conversion = _spoilt(plan(adapter, model, DEPLOYMENTS["untie-model"]), spoil)
    deployed = _deployed(base, conversion, adapter, model, tmp_path / "spoilt")
    proof = _verified(llama_cpp, base, directory, deployed)
    assert proof.tensors.faults
    assert not proof.passed
    if shows_in_logits:
        assert proof.comparison is not None
        assert proof.comparison.effect_ratio > 100 * LARGEST_RATIO


def test_swapped_factors_are_found_out(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The factors of up_proj and gate_proj, which have the same shapes, change places."""
    base = TinyModel("qwen3")
    directory = tiny_adapter("plain", base)
    adapter, model = read_adapter(directory), read_base_model(base.gguf)

    def swap(tensor: PlannedTensor) -> PlannedTensor:
        for one, other in (("ffn_up", "ffn_gate"), ("ffn_gate", "ffn_up")):
            if one in tensor.name:
                return replace(tensor, name=tensor.name.replace(one, other))
        return tensor

    conversion = _spoilt(plan(adapter, model, DEPLOYMENTS["lora"]), swap)
    deployed = _deployed(base, conversion, adapter, model, tmp_path / "swapped")
    proof = _verified(llama_cpp, base, directory, deployed)
    assert proof.tensors.faults
    assert proof.comparison is not None
    assert proof.comparison.effect_ratio > 100 * LARGEST_RATIO


# --- Helpers ----------------------------------------------------------------------------------------------------------


def _converted(base: TinyModel, directory: Path, deployment: Deployment, output: Path) -> Deployed:
    adapter, model = read_adapter(directory), read_base_model(base.gguf)
    return _deployed(base, plan(adapter, model, deployment), adapter, model, output)


def _deployed(
    base: TinyModel, conversion: ConversionPlan, adapter: Adapter, model: BaseModel, output: Path
) -> Deployed:
    written = write(conversion, adapter, model, output)
    match conversion.deployment.kind:
        case "lora":
            return DeployedLora(written[0].path, base.gguf)
        case "untie-lora":
            return DeployedLora(written[1].path, written[0].path)
        case _:
            return DeployedModel(written[0].path, base.gguf)


def _verified(llama_cpp: LlamaCpp, base: TinyModel, adapter: Path, deployed: Deployed) -> Verification:
    return verify(Case(read_adapter(adapter), base.hf, deployed, token_sequences(2, 24)), llama_cpp)


def _ratio(llama_cpp: LlamaCpp, adapter: Path, deployed: Deployed) -> float:
    """KL(PEFT || deployed) / KL(PEFT || base), PEFT's logits as they were when the adapter was saved."""
    base_logits, peft_logits = saved_logits(adapter)
    lora = deployed.lora if isinstance(deployed, DeployedLora) else None
    model = deployed.base if isinstance(deployed, DeployedLora) else deployed.model
    served = np.stack(llama_cpp.logits(model, token_sequences(), lora=lora))
    return _kl(peft_logits, served) / _kl(peft_logits, base_logits)


def _kl(reference: np.ndarray, other: np.ndarray) -> float:
    log_p, log_q = (log_softmax(logits.astype(np.float64)) for logits in (reference, other))
    return float(kl_divergence(log_p, log_q).mean())
