"""The proofs on every kind of adapter: PEFT reloaded is PEFT as saved, its weights deployed pass, spoilt ones don't."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFValueType, GGUFWriter
from safetensors.torch import load_file, save_file

from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import read_base_model
from converter.errors import ConverterError
from converter.verification.comparison import kl_divergence, log_softmax
from converter.verification.llama_cpp import DEFAULTS, PROOF, LlamaCpp
from converter.verification.lora_pairs import prove_lora
from converter.verification.reference import Reference
from converter.verification.verification import Case, DeployedLora, DeployedModel, prove
from fixtures.tiny import TinyModel
from fixtures.variation import Truth, Variation, save_variation
from tests.e2e.verify_variations import CASES, weights_of, write_model

pytestmark = pytest.mark.llama

Weights = dict[str, torch.Tensor]


def built(case: str, directory: Path) -> tuple[TinyModel, Adapter, Truth]:
    name, variation = CASES[case]
    return saved(TinyModel(name), variation, directory)


def saved(base: TinyModel, variation: Variation, directory: Path) -> tuple[TinyModel, Adapter, Truth]:
    truth = save_variation(variation, base, directory)
    adapter = read_adapter(directory)
    return base, replace(adapter, initial=read_adapter(truth.initial)) if truth.initial else adapter, truth


def ratio(truth: Truth, found: np.ndarray) -> float:
    """The share of the adapter's effect that the logits get wrong."""
    return mean_kl(truth.peft, found) / mean_kl(truth.peft, truth.base)


def mean_kl(logits: np.ndarray, other: np.ndarray) -> float:
    n_vocab = min(logits.shape[-1], other.shape[-1])
    p, q = (log_softmax(np.concatenate(list(values))[:, :n_vocab]) for values in (logits, other))
    return float(kl_divergence(p, q).mean())


@pytest.mark.parametrize("case", CASES)
def test_the_reference_is_peft_as_it_was_saved(case: str, tmp_path: Path) -> None:
    base, adapter, truth = built(case, tmp_path / "adapter")
    reference = Reference(base.hf, adapter)
    assert ratio(truth, np.stack([reference.logits(sequence) for sequence in truth.sequences])) < 1e-9
    bare = np.stack([reference.base_logits(sequence) for sequence in truth.sequences])
    assert mean_kl(truth.base, bare) < 1e-10


@pytest.mark.parametrize("case", CASES)
def test_a_right_model_passes_and_a_spoilt_one_does_not(case: str, tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base, adapter, truth = built(case, tmp_path / "adapter")
    reference = Reference(base.hf, adapter)
    weights = weights_of(reference)
    path = write_model(tmp_path / "model.gguf", base, adapter, weights)
    deployment = Case(adapter, base.hf, DeployedModel(path, base.gguf), truth.sequences[:2])
    found = prove(deployment, llama_cpp)
    assert list(found.failures) == []
    assert ratio(truth, np.stack(llama_cpp.logits(path, truth.sequences))) < 1e-4
    name = max((name for name in reference.touched if "layers.1." in name or "h.1." in name), default="lm_head.weight")
    weights[name] = torch.from_numpy(reference.base_weight(name, slice(None))).reshape(weights[name].shape)
    write_model(path, base, adapter, weights)
    assert len(prove(deployment, llama_cpp).tensors.faults) in {1, 2}  # gate and up are one parameter, and two tensors


def swap_gate_and_up(weights: Weights) -> None:
    name = "model.layers.1.mlp.experts.gate_up_proj.weight"
    weights[name] = weights[name].roll(weights[name].shape[1] // 2, dims=1)


def swap_two_experts(weights: Weights) -> None:
    name = "model.layers.1.mlp.experts.down_proj.weight"
    weights[name] = weights[name][[1, 0, 2, 3]]


def drop_a_row(weights: Weights) -> None:
    weights["model.embed_tokens.weight"][17] = weights["model.embed_tokens.weight"][18]


def turn_a_square(weights: Weights) -> None:
    name = "transformer.h.1.attn.c_proj.weight"
    weights[name] = weights[name].T


def drop_an_added_bias(weights: Weights) -> None:
    weights["model.layers.1.mlp.up_proj.bias"] *= 0


def take_another_layer(weights: Weights) -> None:
    name = "post_attention_layernorm.weight"
    weights[f"model.layers.3.{name}"] = weights[f"model.layers.2.{name}"]  # which are the base's second and first


def lose_a_new_row(weights: Weights) -> None:
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        weights[name] = weights[name][:-1]


@pytest.mark.parametrize(
    ("case", "spoil", "faults"),
    [
        ("fused experts", swap_gate_and_up, ["blk.1.ffn_gate_exps.weight is off", "blk.1.ffn_up_exps.weight is off"]),
        ("single experts", swap_two_experts, ["blk.1.ffn_down_exps.weight is off"]),
        ("other rows of each end", drop_a_row, ["token_embd.weight is off"]),
        ("LoRA on Conv1D, biases trained", turn_a_square, ["blk.1.attn_output.weight is off"]),
        ("added biases", drop_an_added_bias, ["blk.1.ffn_up.bias is off"]),
        ("a layer more", take_another_layer, ["blk.3.ffn_norm.weight differs from the base's"]),
        ("new rows of an untied base", lose_a_new_row, ["token_embd.weight has shape", "output.weight has shape"]),
    ],
)
def test_what_only_some_adapters_can_get_wrong_is_found(
    case: str, spoil: Callable[[Weights], None], faults: list[str], tmp_path: Path, llama_cpp: LlamaCpp
) -> None:
    base, adapter, truth = built(case, tmp_path / "adapter")
    weights = weights_of(Reference(base.hf, adapter))
    spoil(weights)
    path = write_model(tmp_path / "model.gguf", base, adapter, weights)
    found = prove(Case(adapter, base.hf, DeployedModel(path, base.gguf), truth.sequences[:1]), llama_cpp)
    assert len(found.tensors.faults) == len(faults), found.tensors.faults
    assert all(any(fault.startswith(wanted) for fault in found.tensors.faults) for wanted in faults)


def test_new_tokens_are_tried_where_llama_cpps_base_lacks_them(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base, adapter, _ = built("new rows", tmp_path / "adapter")
    path = write_model(tmp_path / "model.gguf", base, adapter, weights_of(Reference(base.hf, adapter)))
    sequences = ((5, 321, 7, 327, 9), (1, 2, 3))
    found = prove(Case(adapter, base.hf, DeployedModel(path, base.gguf), sequences), llama_cpp)
    assert list(found.failures) == []
    assert found.comparison is not None
    assert found.comparison.floor is not None  # of the sequence that the base can be asked
    assert found.comparison.n_tokens == 8


# --- What is refused --------------------------------------------------------------------------------------------------


def test_new_rows_that_nothing_gives_are_refused(tmp_path: Path) -> None:
    variation = replace(CASES["new rows by index"][1], options={**CASES["new rows by index"][1].options})
    base, adapter, _ = saved(TinyModel("llama"), variation, tmp_path / "adapter")
    config = json.loads((adapter.path / "adapter_config.json").read_text())
    config["trainable_token_indices"] = list(range(321, 329))
    (adapter.path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ConverterError, match=r"nothing says what row 320 of model\.embed_tokens is"):
        Reference(base.hf, read_adapter(adapter.path))


def test_a_magnitude_that_the_file_lacks_is_not_made_up(tmp_path: Path) -> None:
    base, adapter, _ = built("DoRA", tmp_path / "adapter")
    path = adapter.path / "adapter_model.safetensors"
    save_file({key: values for key, values in load_file(path).items() if "1.mlp.up_proj.lora_mag" not in key}, path)
    with pytest.raises(ConverterError, match="lora_magnitude_vector, which the file lacks"):
        Reference(base.hf, read_adapter(adapter.path))


@pytest.mark.parametrize("method", ["pissa_niter_4", "corda"])
def test_a_start_that_can_not_be_told_is_refused(method: str, tmp_path: Path) -> None:
    base, adapter, _ = built("PiSSA as trained", tmp_path / "adapter")
    config = json.loads((adapter.path / "adapter_config.json").read_text())
    (adapter.path / "adapter_config.json").write_text(json.dumps({**config, "init_lora_weights": method}))
    with pytest.raises(ConverterError, match="by what only the initial adapter tells"):
        Reference(base.hf, read_adapter(adapter.path))


def test_a_merge_that_is_not_what_the_layer_does_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.variants import DoraLinearVariant

    base, adapter, _ = built("DoRA", tmp_path / "adapter")
    monkeypatch.setattr(DoraLinearVariant, "merge_unsafe", lambda *_, **__: None)
    with pytest.raises(ConverterError, match=r"PEFT's merge is not what its layer \(Linear\) does unmerged"):
        Reference(base.hf, adapter)


# --- LoRA GGUFs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["DoRA", "biases added to biases", "rows of a tied base", "a layer more"])
def test_what_no_lora_can_carry_is_a_fault_of_it(case: str, tmp_path: Path) -> None:
    base, adapter, _ = built(case, tmp_path / "adapter")
    lora = write_lora(tmp_path / "lora.gguf", base.name, adapter, lambda _, a, b: (a, b))
    proof = prove_lora(lora, read_base_model(base.gguf), Reference(base.hf, adapter), lambda *_: None)
    assert any("that none can carry" in fault or "which no LoRA can" in fault for fault in proof.faults)


Tamper = Callable[[str, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def as_it_is(_name: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return a, b


def write_lora(
    path: Path, architecture: str, adapter: Adapter, tamper: Tamper, invocation: tuple[int, ...] = ()
) -> Path:
    """Write the adapter's pairs, fused experts expert by expert as llama.cpp multiplies them."""
    writer = GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 16.0)
    if invocation:
        key = "adapter.alora.invocation_tokens"
        writer.add_key_value(key, invocation, GGUFValueType.ARRAY, GGUFValueType.UINT32)
    for pair in adapter.pairs:
        tensors = {t.role: load_file(t.tensor.path)[t.key].numpy() for t in (pair.a, pair.b)}
        for name, a, b in _as_gguf(pair.module, tensors["lora_A"], tensors["lora_B"]):
            factors = tamper(name, a, b)
            for kind, values in zip("ab", factors, strict=True):
                writer.add_tensor(f"{name}.weight.lora_{kind}", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


NAMES = {
    **{f"self_attn.{kind}_proj": f"attn_{kind}" for kind in "qkv"},
    "self_attn.o_proj": "attn_output",
    "mlp.down_proj": "ffn_down",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_proj": "ffn_gate",
    "mlp.gate": "ffn_gate_inp",
}


def _as_gguf(module: str, a: np.ndarray, b: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    _, _, layer, path = module.split(".", 3)
    if not path.startswith("mlp.experts."):
        return [(f"blk.{layer}.{NAMES[path]}", a, b)]
    a, b = a.reshape(4, -1, a.shape[1]), np.moveaxis(b.reshape(b.shape[0], -1, 4), 2, 0)
    if path.endswith("down_proj"):
        return [(f"blk.{layer}.ffn_down_exps", a, b)]
    gate, up = np.split(b, 2, axis=1)
    return [(f"blk.{layer}.ffn_gate_exps", a, gate), (f"blk.{layer}.ffn_up_exps", a, up)]


def swap_experts(name: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (a[[1, 0, 2, 3]] if name == "blk.2.ffn_up_exps" else a), b


@pytest.mark.parametrize(
    ("tamper", "faults"), [(as_it_is, 0), (swap_experts, 1)], ids=["right", "two experts of one tensor swapped"]
)
@pytest.mark.parametrize("case", ["fused experts", "single experts"])
def test_loras_on_experts(case: str, tamper: Tamper, faults: int, tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base, fused, truth = built("fused experts", tmp_path / "fused")
    _, adapter, _ = built(case, tmp_path / "adapter")
    lora = write_lora(tmp_path / "lora.gguf", "qwen3moe", fused, tamper)
    found = prove(Case(adapter, base.hf, DeployedLora(lora, base.gguf), truth.sequences[:2]), llama_cpp)
    assert len(found.tensors.faults) == faults, found.tensors.faults
    assert (ratio(truth, np.stack(llama_cpp.logits(base.gguf, truth.sequences, lora))) < 1e-4) == (not faults)


# --- Activated LoRAs --------------------------------------------------------------------------------------------------

INVOCATION = (5, 9)
# Invoked in the middle, twice, from the start, after one token, at the end, and not at all.
INVOKED = tuple(
    tuple(sequence)
    for sequence in (
        (*range(40, 60), 5, 9, *range(60, 70)),
        (5, 9, *range(40, 50), 5, 9, 5, *range(60, 70)),
        (5, 9, *range(40, 70)),
        (7, 5, 9, *range(40, 70)),
        (*range(40, 60), 5, 9),
        (5, *range(40, 60), 9),
    )
)
ACTIVATED = Variation(
    "v",
    {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"],
        "alora_invocation_tokens": list(INVOCATION),
    },
)


def activated(tmp_path: Path, invocation: tuple[int, ...] = INVOCATION) -> tuple[TinyModel, Adapter, Path]:
    base, adapter, _ = saved(TinyModel("qwen3"), ACTIVATED, tmp_path / "adapter")
    return base, adapter, write_lora(tmp_path / "lora.gguf", "qwen3", adapter, as_it_is, invocation)


def test_an_activated_lora_is_on_from_its_invocation_on(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base, adapter, lora = activated(tmp_path)
    reference = Reference(base.hf, adapter)
    for sequence in INVOKED:
        (found,) = llama_cpp.logits(base.gguf, [sequence], lora)
        wanted = reference.logits(sequence)
        assert mean_kl(wanted[None], found[None]) < 1e-9
    with_it, without = reference.logits(INVOKED[0]), reference.base_logits(INVOKED[0])
    assert np.abs(with_it[:20] - without[:20]).max() < 1e-5
    assert np.abs(with_it[20:] - without[20:]).max() > 1
    assert list(prove(Case(adapter, base.hf, DeployedLora(lora, base.gguf), INVOKED), llama_cpp).failures) == []


def test_sequences_get_the_invocation_that_they_lack(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base, adapter, lora = activated(tmp_path)
    found = prove(Case(adapter, base.hf, DeployedLora(lora, base.gguf), ((7, 8, 11, 12),)), llama_cpp)
    assert list(found.failures) == []
    assert found.comparison is not None
    assert found.comparison.n_tokens == 6


def test_an_activated_lora_without_its_tokens_is_always_on_and_fails(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base, adapter, lora = activated(tmp_path, invocation=())
    found = prove(Case(adapter, base.hf, DeployedLora(lora, base.gguf), INVOKED), llama_cpp)
    assert found.tensors.faults == ("adapter.alora.invocation_tokens is [], PEFT's [5, 9]",)
    assert found.comparison is not None
    assert found.comparison.effect_ratio > 0.1


def test_llama_server_is_one_token_early(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base, _, lora = activated(tmp_path)
    exact, early = (
        llama_cpp.logits(base.gguf, [INVOKED[0]], lora, settings=settings)[0]
        for settings in (PROOF, replace(PROOF, n_tokens_early=1))
    )
    assert DEFAULTS.n_tokens_early == 1
    differing = np.abs(exact - early).max(axis=1) > 1e-3
    assert not differing[:19].any()
    assert differing[19:].all()
