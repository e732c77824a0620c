"""Adapters of every kind that PEFT saves beside a plain LoRA, and each one deployed by hand.

The deployments are the reference's own weights in a transformers model, written by the fixtures' GGUF writer. Whether
those weights are right is judged by logits: llama.cpp's of the file, against PEFT's at the moment of saving.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from converter.derive.adapter import Adapter
from converter.verification.prepared_base import prepare_base
from converter.verification.reference import Reference
from fixtures import variation_edits as edits
from fixtures.adapters import load_base
from fixtures.tiny import TinyModel
from fixtures.tiny_gguf import write_gguf
from fixtures.variation import Variation

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
TOKENS = [3, 17, 200]


def _lora(*targets: str, **options: Any) -> Mapping[str, Any]:
    return {"r": 8, "lora_alpha": 16, "target_modules": list(targets or LINEAR), **options}


def _of(peft_type: str, **options: Any) -> Variation:
    return Variation(peft_type, {"target_modules": LINEAR, **options}, f"{peft_type}Config")


def untie_and_grow(model: PreTrainedModel) -> None:
    edits.untie(model)
    edits.add_eight_tokens(model)


# The base's name, and the adapter.
CASES: Mapping[str, tuple[str, Variation]] = {
    "DoRA": ("llama", Variation("v", _lora(use_dora=True))),
    "DoRA on both ends": (
        "llama",
        Variation("v", _lora(*LINEAR, "embed_tokens", "lm_head", use_dora=True), prepare=edits.untie),
    ),
    "DoRA on Conv1D": ("gpt2", Variation("v", _lora("c_attn", "c_proj", "c_fc", use_dora=True))),
    "LoRA on Conv1D, biases trained": ("gpt2", Variation("v", _lora("c_attn", "c_proj", bias="all"))),
    "biases trained": ("qwen2", Variation("v", _lora(bias="lora_only"))),
    "added biases": ("llama", Variation("v", _lora("up_proj", "down_proj", lora_bias=True))),
    "biases added to biases": ("qwen2", Variation("v", _lora("q_proj", "v_proj", lora_bias=True))),
    "a saved linear and norms": (
        "gemma2",
        Variation("v", _lora(*ATTENTION, modules_to_save=["down_proj", "norm", "layernorm"])),
    ),
    "both ends saved": ("llama", Variation("v", _lora(modules_to_save=["embed_tokens", "lm_head"]))),
    "both ends saved as one": (
        "gemma3",
        Variation("v", _lora(modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=True)),
    ),
    "rows of a tied base": ("gemma3", Variation("v", _lora(trainable_token_indices=TOKENS))),
    "rows of GPT-2": ("gpt2", Variation("v", _lora("c_attn", trainable_token_indices=TOKENS))),
    "other rows of each end": (
        "llama",
        Variation("v", _lora(trainable_token_indices={"embed_tokens": TOKENS, "lm_head": [5, 17]})),
    ),
    "new rows": ("gemma3", Variation("v", _lora(), prepare=edits.add_eight_tokens)),
    "new rows of an untied base": ("qwen3", Variation("v", _lora(), prepare=untie_and_grow)),
    "new rows by index": (
        "llama",
        Variation(
            "v",
            _lora(trainable_token_indices=list(range(320, 328))),
            prepare=edits.add_eight_tokens,
            save_embedding_layers=False,
        ),
    ),
    "new rows by index, and the ends": (
        "gemma3",
        Variation("v", _lora(trainable_token_indices=list(range(320, 328))), prepare=edits.add_eight_tokens),
    ),
    "new rows of saved ends": (
        "llama",
        Variation("v", _lora(modules_to_save=["embed_tokens", "lm_head"]), prepare=edits.add_eight_tokens),
    ),
    "fused experts": ("qwen3moe", Variation("v", _lora(*ATTENTION, target_parameters=EXPERTS))),
    "single experts": (
        "qwen3moe",
        Variation(
            "v",
            _lora(*ATTENTION, target_parameters=EXPERTS),
            edit=edits.both(
                edits.one_lora_for_each_expert, edits.edit_config(target_parameters=None, target_modules=LINEAR)
            ),
        ),
    ),
    "plain weights": ("llama", Variation("v", _lora("v_proj", target_parameters=["self_attn.q_proj.weight"]))),
    "a router": ("qwen3moe", Variation("v", _lora(*ATTENTION, target_parameters=["mlp.gate.weight"]))),
    "fused projections": ("phi3", Variation("v", _lora("qkv_proj", "gate_up_proj", "down_proj", use_rslora=True))),
    "a layer more": ("llama", Variation("v", _lora(layer_replication=[[0, 2], [1, 3]]))),
    "layers moved": ("qwen2", Variation("v", _lora(layer_replication=[[2, 3], [0, 2]]))),
    "PiSSA as trained": ("llama", Variation("v", _lora(init_lora_weights="pissa", lora_alpha=8))),
    "PiSSA, its start kept": ("llama", Variation("v", _lora(init_lora_weights="pissa", lora_alpha=8), initial="kept")),
    "OLoRA as trained": ("qwen2", Variation("v", _lora(init_lora_weights="olora", lora_alpha=8))),
    "IA3": ("qwen2", _of("IA3", feedforward_modules=["down_proj"])),
    "AdaLoRA": ("llama", _of("AdaLora", total_step=10)),
    "VeRA, whose matrices lie beside the modules": ("llama", _of("Vera", target_modules=["q_proj", "v_proj"])),
    "rows alone": ("llama", _of("TrainableTokens", target_modules=["embed_tokens"], token_indices=TOKENS)),
    "norms alone": ("llama", _of("LNTuning", target_modules=["input_layernorm", "post_attention_layernorm", "norm"])),
}


def served_model(base: TinyModel, adapter: Adapter, weights: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """An ordinary model with the parameters given; head and embedding are two where they differ."""
    prepared = prepare_base(load_base(base.hf), adapter)
    model: Any = prepared.model
    ends = (weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    model.config.tie_word_embeddings = torch.equal(*ends)
    with torch.no_grad():
        for name, values in weights.items():
            module, _, parameter = prepared.path(
                name.removesuffix(".weight") if ".experts." in name else name
            ).rpartition(".")
            owner = model.get_submodule(module)
            is_turned = isinstance(owner, Conv1D) and values.dim() == 2
            owner.register_parameter(parameter, nn.Parameter((values.T if is_turned else values).float().contiguous()))
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.get_input_embeddings().weight
    return model  # type: ignore[no-any-return]  # a model


def weights_of(reference: Reference) -> dict[str, torch.Tensor]:
    """Every parameter as PEFT serves it, in float64 and in its own shape."""
    return {
        name: torch.from_numpy(reference.weight(name, slice(None))).reshape(reference.shape(name)).clone()
        for name in reference.names
    }


def write_model(path: Path, base: TinyModel, adapter: Adapter, weights: Mapping[str, torch.Tensor]) -> Path:
    write_gguf(served_model(base, adapter, weights), path, GGMLQuantizationType.F32)
    return path
