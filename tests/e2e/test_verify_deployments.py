"""adapter-verify on deployments that are right, and on each way of being wrong that it is there to find.

The deployments are written by the fixtures' own GGUF writer and by the one below, not by the conversion: what is
judged here is the judge.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter
from transformers import AutoConfig

from converter.cli.verify import main
from converter.derive.adapter import Adapter, LoraPair, read_adapter
from converter.errors import ConverterError
from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed
from converter.verification.prompts import TokenFile
from converter.verification.reference import Reference
from converter.verification.verification import Case, Deployed, DeployedLora, DeployedModel, Verification, prove, verify
from fixtures.adapters import load_base, tiny_adapter, untie
from fixtures.tiny import TinyModel, token_sequences
from fixtures.tiny_gguf import ARCHITECTURES, _gguf_values, gguf_name, write_gguf

pytestmark = pytest.mark.llama

Weights = dict[str, np.ndarray]
SEQUENCES = token_sequences(2, 24)


def as_it_is(_weights: Weights, _reference: Reference) -> None:
    """Leave the deployment right."""


def write_merged(
    path: Path,
    base: TinyModel,
    adapter: Path,
    outtype: str = "F32",
    tamper: Callable[[Weights, Reference], None] = as_it_is,
) -> Path:
    """Write base and adapter merged, after `tamper` has had its way with the weights."""
    reference = Reference(base.hf, read_adapter(adapter))
    weights = {name: reference.weight(name, slice(None)) for name in reference.names}
    tamper(weights, reference)
    model = load_base(base.hf)
    head, embedding = weights["lm_head.weight"], weights["model.embed_tokens.weight"]
    if not np.allclose(head, embedding, rtol=0, atol=1e-12):
        untie(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
    write_gguf(model, path, GGMLQuantizationType[outtype])
    return path


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors of one module as they go into a LoRA GGUF, before rows are ordered."""

    a: np.ndarray
    b: np.ndarray


def factors_of(pair: LoraPair) -> Factors:
    """Read a pair's factors, the embedding's turned as llama.cpp wants them."""
    a, b = (
        np.fromfile(t.tensor.path, np.float32, t.tensor.n_elements, offset=t.tensor.offset).reshape(t.tensor.shape)
        for t in (pair.a, pair.b)
    )
    return Factors(a.T, b) if pair.is_embedding else Factors(a, b)


def write_lora(
    path: Path,
    base: TinyModel,
    adapter: Adapter,
    tamper: Callable[[str, Factors], Factors | None] = lambda _, factors: factors,
    alpha: float = 16.0,
) -> Path:
    """Write the adapter as a LoRA GGUF, each module's factors as `tamper` returns them."""
    config = AutoConfig.from_pretrained(base.hf)
    architecture = ARCHITECTURES[config.model_type]
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[architecture])
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for pair in adapter.pairs:
        factors = tamper(pair.module, factors_of(pair))
        if factors:
            name = gguf_name(f"{pair.module}.weight", architecture)
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(factors.a))
            rows = factors.b if pair.is_embedding else _gguf_values(f"{pair.module}.weight", factors.b, config)
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(rows))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def verified(llama: LlamaCpp, base: TinyModel, adapter: Path, deployed: Deployed) -> Verification:
    return prove(Case(read_adapter(adapter), base.hf, deployed, SEQUENCES), llama)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


# --- Right deployments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "recipe", "base_type", "outtype"),
    [
        ("llama", "plain", "F32", "F32"),
        ("llama", "embed_and_head", "F32", "F16"),
        ("llama", "foreign_base_layer", "F32", "F32"),
        ("llama", "lm_head", "BF16", "BF16"),
        ("mistral", "patterns", "F32", "F32"),
        ("gemma", "tied_pair", "F32", "F32"),
        ("gemma2", "plain_bf16", "F32", "F32"),
        ("gemma3", "embed_tokens", "F32", "F32"),
        ("qwen2", "rslora", "F32", "F32"),
        ("qwen2", "saved_lm_head", "F32", "F16"),
        ("qwen3", "lm_head_without_base_layer", "F32", "F32"),
    ],
)
def test_a_right_model_passes(  # noqa: PLR0917  pytest's parameters
    name: str, recipe: str, base_type: str, outtype: str, tmp_path: Path, llama_cpp: LlamaCpp
) -> None:
    base = TinyModel(name, outtype=base_type)
    adapter = tiny_adapter(recipe, base)
    model = write_merged(tmp_path / "model.gguf", base, adapter, outtype)
    at_hand = base.gguf if outtype == base_type else None  # the fixtures' writer has one type for all matrices
    found = verified(llama_cpp, base, adapter, DeployedModel(model, at_hand))
    assert list(found.failures) == []
    assert found.comparison is not None
    assert found.comparison.effect_ratio < (1e-5 if outtype != "BF16" else 5e-3)
    assert len({check.tensor for check in found.tensors.checks if check.touched}) >= 21


@pytest.mark.parametrize(
    ("name", "recipe", "served_on"),
    [
        ("llama", "plain", "the tied base"),
        ("gemma3", "plain", "the tied base"),
        ("gemma", "plain", "the tied base"),
        ("qwen3", "plain", "the tied base"),
        ("llama", "lm_head", "an untied base"),
        ("llama", "embed_and_head", "an untied base"),
        ("gemma3", "embed_tokens", "an untied base"),
    ],
)
def test_a_right_lora_passes(name: str, recipe: str, served_on: str, tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base = TinyModel(name)
    adapter = tiny_adapter(recipe, base)
    lora = write_lora(tmp_path / "lora.gguf", base, read_adapter(adapter))
    served = base.gguf if served_on == "the tied base" else write_untied(tmp_path / "base.gguf", base)
    found = verified(llama_cpp, base, adapter, DeployedLora(lora, served))
    assert list(found.failures) == []
    assert found.tensors.error < 0.1


def write_untied(path: Path, base: TinyModel) -> Path:
    model = load_base(base.hf)
    untie(model)
    write_gguf(model, path, GGMLQuantizationType[base.outtype])
    return path


# --- Wrong models -----------------------------------------------------------------------------------------------------

# Square in qwen2's tiny model, so that swapped factors still fit.
SQUARE = "model.layers.1.self_attn.o_proj"
DROPPED = "model.layers.2.mlp.down_proj.weight"


def half_alpha(weights: Weights, reference: Reference) -> None:
    for module in reference.pairs:
        weights[f"{module}.weight"] -= reference.delta(module, slice(None)) / 2


def one_module_dropped(weights: Weights, reference: Reference) -> None:
    weights[DROPPED] = reference.base_weight(DROPPED, slice(None))


def swapped_factors(weights: Weights, reference: Reference) -> None:
    delta = reference.delta(SQUARE, slice(None))
    weights[f"{SQUARE}.weight"] += delta.T - delta


def head_dropped(weights: Weights, reference: Reference) -> None:
    weights["lm_head.weight"] = reference.base_weight("lm_head.weight", slice(None))


def head_in_the_embedding_too(weights: Weights, _reference: Reference) -> None:
    weights["model.embed_tokens.weight"] = weights["lm_head.weight"]


def a_norm_moved(weights: Weights, _reference: Reference) -> None:
    weights["model.norm.weight"][3] += 1e-6


def delta_added_twice(weights: Weights, reference: Reference) -> None:
    weights[DROPPED] += reference.delta(DROPPED.removesuffix(".weight"), slice(None))


def not_a_number(weights: Weights, _reference: Reference) -> None:
    weights[DROPPED][0, 0] = np.nan


WRONG: Mapping[str, tuple[str, Callable[[Weights, Reference], None], str]] = {
    "half alpha": ("plain", half_alpha, "blk.0.attn_q.weight is off"),
    "one module dropped": ("plain", one_module_dropped, "blk.2.ffn_down.weight is off"),
    "swapped factors": ("plain", swapped_factors, "blk.1.attn_output.weight is off"),
    "head dropped": ("lm_head", head_dropped, "token_embd.weight is off from PEFT's lm_head.weight"),
    "head in the embedding too": ("lm_head", head_in_the_embedding_too, "token_embd.weight differs from the base's"),
    "a norm moved": ("plain", a_norm_moved, "output_norm.weight differs from the base's"),
    "delta added twice": ("plain", delta_added_twice, "blk.2.ffn_down.weight is off"),
    "not a number": ("plain", not_a_number, "by nan times"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_model_fails_the_tensor_proof(case: str, tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    recipe, tamper, fault = WRONG[case]
    base = TinyModel("qwen2")
    adapter = tiny_adapter(recipe, base)
    model = write_merged(tmp_path / "model.gguf", base, adapter, tamper=tamper)
    found = verified(llama_cpp, base, adapter, DeployedModel(model, base.gguf))
    assert not found.passed
    assert any(fault in line for line in found.tensors.faults), found.tensors.faults


@pytest.mark.parametrize("case", ["half alpha", "head dropped", "swapped factors", "delta added twice"])
def test_the_logits_alone_find_the_large_faults(case: str, tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    recipe, tamper, _ = WRONG[case]
    base = TinyModel("qwen2")
    adapter = tiny_adapter(recipe, base)
    model = write_merged(tmp_path / "model.gguf", base, adapter, tamper=tamper)
    comparison = verified(llama_cpp, base, adapter, DeployedModel(model, base.gguf)).comparison
    assert comparison is not None
    assert comparison.effect_ratio > 5e-3


def test_the_base_itself_does_nothing_of_the_adapter(llama_cpp: LlamaCpp) -> None:
    base = TinyModel("llama")
    found = verified(llama_cpp, base, tiny_adapter("plain", base), DeployedModel(base.gguf, base.gguf))
    assert found.comparison is not None
    assert found.comparison.effect_ratio == pytest.approx(1, abs=1e-4)
    assert len(found.tensors.faults) == 21


def test_rows_in_another_order_are_found_by_both_proofs(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base = TinyModel("llama")
    adapter = tiny_adapter("plain", base)

    def not_interleaved(weights: Weights, _reference: Reference) -> None:
        name = "model.layers.0.self_attn.q_proj.weight"
        weights[name] = _gguf_values(name, weights[name], AutoConfig.from_pretrained(base.hf))

    model = write_merged(tmp_path / "model.gguf", base, adapter, tamper=not_interleaved)
    found = verified(llama_cpp, base, adapter, DeployedModel(model, base.gguf))
    assert found.comparison is not None
    assert found.comparison.effect_ratio > 1e-3
    assert [fault.split()[0] for fault in found.tensors.faults] == ["blk.0.attn_q.weight"]


def test_an_adapter_without_effect_proves_nothing(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base = TinyModel("llama")
    adapter = scaled_adapter(tmp_path / "adapter", base, 1e-9)
    found = verified(llama_cpp, base, adapter, DeployedModel(base.gguf, base.gguf))
    assert any("too little effect" in failure for failure in found.failures)


def scaled_adapter(directory: Path, base: TinyModel, factor: float) -> Path:
    directory.mkdir()
    source = tiny_adapter("plain", base)
    config = json.loads((source / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] * factor}))
    (directory / "adapter_model.safetensors").write_bytes((source / "adapter_model.safetensors").read_bytes())
    return directory


# --- Wrong LoRAs ------------------------------------------------------------------------------------------------------


def without_one(module: str, factors: Factors) -> Factors | None:
    return None if module == SQUARE else factors


def swapped(module: str, factors: Factors) -> Factors:
    return Factors(factors.b.T, factors.a.T) if module == SQUARE else factors


def one_row_off(module: str, factors: Factors) -> Factors:
    return Factors(factors.a, np.roll(factors.b, 1, axis=0)) if module == SQUARE else factors


@pytest.mark.parametrize(
    ("tamper", "alpha", "fault"),
    [
        (without_one, 16.0, "blk.1.attn_output.weight lacks a factor"),
        (swapped, 16.0, "blk.1.attn_output.weight differs from PEFT's by 1."),
        (one_row_off, 16.0, "blk.1.attn_output.weight differs from PEFT's by 1."),
        (lambda _, factors: factors, 8.0, "blk.0.attn_q.weight differs from PEFT's by 0.5 of its size"),
        (lambda _, factors: factors, 0.0, "blk.0.attn_q.weight differs from PEFT's by 0.5 of its size"),
    ],
    ids=["one dropped", "swapped", "rows off", "half alpha", "alpha 0"],
)
def test_a_wrong_lora_fails_the_tensor_proof(
    tamper: Callable[[str, Factors], Factors | None], alpha: float, fault: str, tmp_path: Path, llama_cpp: LlamaCpp
) -> None:
    base = TinyModel("qwen2")
    adapter = tiny_adapter("plain", base)
    lora = write_lora(tmp_path / "lora.gguf", base, read_adapter(adapter), tamper, alpha)
    found = verified(llama_cpp, base, adapter, DeployedLora(lora, base.gguf))
    assert any(line.startswith(fault) for line in found.tensors.faults), found.tensors.faults
    assert not found.passed


def test_a_delta_in_excess_is_found(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base = TinyModel("llama")
    both, head = tiny_adapter("embed_and_head", base), tiny_adapter("lm_head", base)
    lora = write_lora(tmp_path / "lora.gguf", base, read_adapter(both))
    found = verified(llama_cpp, base, head, DeployedLora(lora, write_untied(tmp_path / "base.gguf", base)))
    assert "token_embd.weight.lora_a is in excess; PEFT's adapter has no such delta" in found.tensors.faults


def test_a_saved_module_is_beyond_a_lora(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base = TinyModel("llama")
    adapter = tiny_adapter("saved_lm_head", base)
    lora = write_lora(tmp_path / "lora.gguf", base, read_adapter(adapter))
    found = verified(llama_cpp, base, adapter, DeployedLora(lora, base.gguf))
    assert found.tensors.faults == ("output.weight has no LoRA: lm_head.weight changes in a way that none can carry",)


# --- llama.cpp says no ------------------------------------------------------------------------------------------------


def test_an_abort_is_a_verdict_and_the_next_call_works(tmp_path: Path, llama_cpp: LlamaCpp) -> None:
    base = TinyModel("llama")
    adapter = tiny_adapter("embed_tokens", base)
    lora = write_lora(tmp_path / "lora.gguf", base, read_adapter(adapter))
    found = verified(llama_cpp, base, adapter, DeployedLora(lora, base.gguf))
    assert found.comparison is None
    (failure,) = found.failures
    assert failure.startswith("llama.cpp aborted the process (SIGABRT)")
    assert "GGML_ASSERT" in failure
    assert llama_cpp.n_vocab(base.gguf) == 320


def test_a_refusal_is_a_verdict(tmp_path: Path) -> None:
    base = TinyModel("llama")
    adapter = tiny_adapter("lm_head", base)
    lora = write_lora(tmp_path / "lora.gguf", base, read_adapter(adapter))
    result = run(adapter, "--base", base.hf, "--lora", lora, "--base-gguf", base.gguf)
    assert result.exit_code == 1
    assert result.stdout.startswith("FAIL  llama.cpp can't run")
    assert "does not exist in base model" in result.stdout
    assert "refuses the LoRA lora.gguf; it logged: " in result.stdout
    assert r"\n" not in result.stdout


def test_a_broken_base_is_no_verdict() -> None:
    base = TinyModel("gemma", tied=False)  # a head that llama.cpp never reads
    tied = TinyModel("gemma")
    result = run(tiny_adapter("plain", tied), "--base", tied.hf, "--model", tied.gguf, "--base-gguf", base.gguf)
    assert result.exit_code == 2
    assert "llama.cpp can't run the base" in result.stderr
    assert " | " in result.stderr
    assert r"\n" not in result.stderr


def test_a_hang_is_told_and_over() -> None:
    base = TinyModel("llama")
    with LlamaCpp(timeout=1e-9) as impatient, pytest.raises(LlamaCppFailed, match="did not answer within"):
        impatient.n_vocab(base.gguf)


# --- The command ------------------------------------------------------------------------------------------------------


def test_a_gguf_is_base_for_peft_and_llama_cpp(tmp_path: Path) -> None:
    base = TinyModel("gemma3", outtype="Q8_0")
    adapter = tiny_adapter("plain", base)
    lora = write_lora(tmp_path / "lora.gguf", base, read_adapter(adapter))
    result = run(adapter, "--base", base.gguf, "--lora", lora, "--format", "json")
    data = json.loads(result.stdout)
    assert (result.exit_code, data["passed"], data["failures"]) == (0, True, [])
    assert data["logits"]["floor"] > 1e-5
    assert data["threshold"]["ratio"] == 5e-2


def test_a_quantised_base_is_compared_beside(tmp_path: Path) -> None:
    """The control is that base as the file: of the adapter it has nothing, and llama.cpp answers alike."""
    base, quantized = TinyModel("llama"), TinyModel("llama", outtype="Q8_0")
    adapter, tokens = tiny_adapter("plain", base), tmp_path / "tokens"
    tokens.write_text("\n".join(" ".join(map(str, sequence)) for sequence in SEQUENCES))
    found = []
    for model in (write_merged(tmp_path / "model.gguf", base, adapter, "Q8_0"), quantized.gguf):
        beside = ("--quantized-base", quantized.gguf, "--tokens", tokens, "--format", "json")
        found.append(json.loads(run(adapter, "--base", base.hf, "--model", model, *beside).stdout))
    right, lost = (data["logits"] for data in found)
    assert [data["passed"] for data in found] == [True, False]
    assert right["quantized_base"]["noise"] < 0.01 * right["effect"]
    assert right["quantized_base"]["effect_ratio"] == pytest.approx(1, abs=0.1)
    assert right["quantized_base"]["effect_of_deployed"] == pytest.approx(1, abs=0.1)
    assert right["quantized_base"]["top1"] < right["top1"]
    assert lost["quantized_base"]["effect_of_deployed"] == pytest.approx(0, abs=1e-9)
    assert lost["quantized_base"]["effect_ratio"] == lost["effect_ratio"]
    assert lost["quantized_base"]["top1_of_deployed"] == lost["quantized_base"]["perplexity_ratio_of_deployed"] == 1


def test_tokens_are_given_in_a_file(tmp_path: Path) -> None:
    base = TinyModel("llama")
    adapter = tiny_adapter("plain", base)
    lora = write_lora(tmp_path / "lora.gguf", base, read_adapter(adapter))
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("1 2 3 4\n5 6 7\n")
    options = ["--base", base.hf, "--lora", lora, "--base-gguf", base.gguf]
    result = run(adapter, *options, "--tokens", tokens)
    assert result.exit_code == 0
    assert result.stdout.startswith("PASS  effect ratio ")
    assert "mean nats of 7 tokens" in result.stdout
    assert result.stderr == ""
    assert run(adapter, *options, "--prompts", tokens).exit_code == 2  # the model has no tokenizer


def test_the_library_proves_in_two_threads_and_leaves_all_else_as_it_was(tmp_path: Path) -> None:
    base = TinyModel("llama")
    adapter = read_adapter(tiny_adapter("plain", base))
    right = write_merged(tmp_path / "right.gguf", base, adapter.path)
    before = dict(os.environ), sys.stderr, torch.get_default_dtype()
    with ThreadPoolExecutor(2) as pool:
        deployed = (DeployedModel(right, base.gguf), DeployedModel(base.gguf, base.gguf))
        good, bad = pool.map(lambda model: verify(adapter, base.hf, model), deployed)
    assert (good.passed, bad.passed) == (True, False)
    assert (dict(os.environ), sys.stderr, torch.get_default_dtype()) == before


def test_the_library_refuses_what_the_command_refuses(tmp_path: Path) -> None:
    base = TinyModel("llama")
    adapter = read_adapter(tiny_adapter("plain", base))
    tokens = tmp_path / "tokens"
    tokens.write_text(" ".join(["5"] * 5000))
    with pytest.raises(ConverterError, match="a sequence has 5000"):
        verify(adapter, base.hf, DeployedModel(base.gguf, None), prompts=TokenFile(tokens))
    with pytest.raises(ConverterError, match="no such GGUF file"):
        verify(adapter, base.hf, DeployedModel(tmp_path / "nowhere.gguf", None))
    tokens.write_bytes(b"no GGUF")
    with pytest.raises(ConverterError) as refusal:
        verify(adapter, base.hf, DeployedModel(base.gguf, tokens))
    assert (refusal.value.status, "can't run the base" in str(refusal.value)) == (2, True)
