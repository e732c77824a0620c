"""Adapters that look odd and are right: none of them may be refused or warned about."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.rules.bad.tensors import MOE, give_experts
from tests.rules.specimens import HIDDEN, PREFIX, RANK, UP, Specimen, codes, lora, tensor, write_gguf, write_huggingface

UNSLOTH_TARGETS = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:k_proj|v_proj|q_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:k_proj|v_proj|q_proj)))"
)
HARMLESS_FIELDS: list[dict[str, object]] = [
    {"target_modules": "all-linear"},
    {"target_modules": r".*_proj", "layers_to_transform": [0]},  # which layers counts for a list only
    {"target_modules": ["model.layers.0.mlp.down_proj", "mlp.down_proj", "q_proj", "v_proj"]},
    {"auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama"}},
    {"auto_mapping": {"base_model_class": "X", "parent_library": "transformers.models.x", "unsloth_fixed": True}},
    {"bias": "all"},  # a llama has none
    {"use_rslora": True},
    {"lora_alpha": 0},
    {"lora_alpha": -3.5},
    {"alpha_pattern": {"q_proj": 64, r"layers\.0\.mlp\.(up|down)_proj": 8}},
    {"init_lora_weights": "gaussian"},
    {"loftq_config": {}, "eva_config": None, "runtime_config": {"ephemeral_gpu_offload": False}},
    {"lora_dropout": 0.1, "inference_mode": False, "task_type": "CAUSAL_LM"},
    {"megatron_core": "megatron.core"},
    {"enable_lora": None, "merge_weights": False},  # of PEFT's first versions
    {"trainable_token_indices": None, "layer_replication": []},
]


@pytest.mark.parametrize("fields", HARMLESS_FIELDS, ids="-".join)
def test_a_harmless_field(fields: dict[str, object], specimen: Specimen) -> None:
    specimen.config |= fields
    specimen.write()
    assert codes(specimen.report()) == []


def test_ranks_by_pattern(specimen: Specimen) -> None:
    specimen.config["rank_pattern"] = {"layers.1.mlp.down_proj": 2 * RANK}
    specimen.tensors |= lora(UP, 32, 96, rank=2 * RANK)
    specimen.write()
    assert codes(specimen.report()) == []


def test_a_pattern_written_for_the_wrapped_model(specimen: Specimen) -> None:
    """PEFT matches the path as the model has it: normalised away, this rank would be lost."""
    wrapped = "language_model.layers.1.mlp.down_proj"
    specimen.tensors |= lora(UP, 32, 96, rank=2 * RANK)
    specimen.tensors = {
        key.replace(f"{PREFIX}.model.", f"{PREFIX}.model.language_model."): value
        for key, value in specimen.tensors.items()
    }
    specimen.config["rank_pattern"] = {wrapped: 2 * RANK}
    specimen.write()
    assert codes(specimen.report()) == []


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: key.replace("lora_A.weight", "lora_A.default.weight"),
        lambda key: key.replace("base_model.model.", "base_model.model.language_model."),
        lambda key: key.replace("base_model.model.model.", "base_model.model.model.language_model."),
    ],
)
def test_a_known_form_of_key(rename: Callable[[str], str], specimen: Specimen) -> None:
    specimen.tensors = {rename(key): value for key, value in specimen.tensors.items()}
    specimen.write()
    assert codes(specimen.report()) == []


@pytest.mark.parametrize(
    ("named", "base_name"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "Smollm2 135M 8k Lc100K Mix1 Ep2"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2 135M Instruct"),
        ("HuggingFaceTB/SmolLM2-360M", "SmolLM2 494M"),
        ("meta-llama/Llama-3.2-1B-Instruct", "Llama 3.2 1B"),
        ("meta-llama/Llama-3.2-1B-Instruct", "Llama 1B Instruct"),
        ("outputs/llama-with-tools", "Llama 3.2 1B Instruct"),
        ("unsloth/llama-3-8b-bnb-4bit", "Meta Llama 3 8B"),
        ("mistralai/Mixtral-8x7B-v0.1", "Mixtral 47B"),
        ("/home/me/my-model-v2", "Gemma 7b"),
        ("meta-llama/Llama-2-7b-hf", ""),
        ("mistralai/Mistral-7B-v0.1", "LLaMA v2"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "Deepseek R1 Distill Llama 8B"),
    ],
)
def test_names_that_do_not_clearly_differ(named: str, base_name: str, specimen: Specimen, tmp_path: Path) -> None:
    specimen.config["base_model_name_or_path"] = named
    specimen.base = write_gguf(tmp_path / "base.gguf", name=base_name)
    specimen.write()
    assert codes(specimen.report()) == []


def test_sharded_weights(specimen: Specimen) -> None:
    specimen.write_shards()
    assert codes(specimen.report()) == []


def test_weights_and_config_as_links_into_a_cache(specimen: Specimen) -> None:
    cache = specimen.directory.parent / "models--me--adapter"
    specimen.directory = cache / "snapshots" / "0123abc"
    specimen.write()
    (cache / "blobs").mkdir()
    for path in (specimen.weights, specimen.config_path):
        blob = path.rename(cache / "blobs" / path.name)
        path.symlink_to(blob)
    assert codes(specimen.report()) == []


def test_a_pickle_beside_safetensors_is_not_opened(specimen: Specimen) -> None:
    specimen.write()
    specimen.weights.with_name("adapter_model.bin").write_bytes(b"\x80")
    specimen.weights.with_name("training_args.bin").write_bytes(b"\x80")
    assert codes(specimen.report()) == []


def test_factors_of_mixed_types(specimen: Specimen) -> None:
    specimen.tensors[f"{UP}.lora_B.weight"] = tensor(HIDDEN, RANK, dtype="F16")
    for dtype, part in (("BF16", "q_proj.lora_A"), ("F8_E4M3", "v_proj.lora_B")):
        width = 2 if dtype == "BF16" else 1
        for key, (_, shape, _data) in list(specimen.tensors.items()):
            if part in key:
                specimen.tensors[key] = (dtype, shape, b"\x01" * (width * shape[0] * shape[1]))
    specimen.write()
    assert codes(specimen.report()) == []


def test_the_state_of_a_training_run_beside_the_adapter(specimen: Specimen) -> None:
    specimen.write_shards(("first.safetensors", "second.safetensors"))
    for name in (
        *("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "scaler.pt", "random_states_0.pkl"),
        *("optimizer.bin", "pytorch_model.bin", "model.safetensors", "model-00001-of-00002.safetensors"),
        *("adapters.safetensors", "0000100_adapters.safetensors", "value_head.safetensors", "tokenizer.model"),
        "zero_pp_rank_0_mp_rank_00_optim_states.pt",
    ):
        (specimen.directory / name).write_bytes(b"weights")
    assert codes(specimen.report()) == []


def test_the_base_that_loftq_saved(specimen: Specimen, bases: Path) -> None:
    specimen.base = write_gguf(bases / "loftq.gguf", name="LoftQ/Tiny-4bit-64rank")
    specimen.config |= {"loftq_config": {"loftq_bits": 4}, "base_model_name_or_path": "LoftQ/Tiny-4bit-64rank"}
    specimen.write()
    assert codes(specimen.report()) == []


@pytest.mark.parametrize("version", ["0.19.1", "0.21.2", "0.22.0.dev0@main", "1.0.0"])
def test_experts_as_today(version: str, specimen: Specimen) -> None:
    give_experts(specimen, 48, HIDDEN, peft_version=version)
    assert codes(specimen.report()) == []


def test_experts_turned_round_are_not_another_models(specimen: Specimen, tmp_path: Path) -> None:
    """The shapes fit no weight, and the base is theirs all the same."""
    give_experts(specimen, HIDDEN, 48, peft_version="0.18.1")
    specimen.base = write_huggingface(tmp_path / "base", model_type="qwen3_moe", **MOE)
    assert "BM002" not in codes(specimen.report())


@pytest.mark.parametrize(
    "data", [b"", b"config\nof the model\n", b"(c) 2026 me\nname\nR.", b"I\n", np.random.default_rng(0).bytes(100_000)]
)
def test_bytes_that_are_no_pickle(data: bytes, tmp_path: Path) -> None:
    specimen = Specimen(tmp_path / "adapter", None)
    specimen.write()
    (specimen.directory / "notes.bin").write_bytes(data)
    assert not {"SC004", "SC005"} & {*codes(specimen.report())}


@pytest.mark.parametrize(("name", "is_told"), [("GraniteMoeHybridForCausalLM", False), ("Gemma2ForCausalLM", True)])
def test_a_class_of_transformers_may_have_several_architectures(
    name: str, is_told: bool, specimen: Specimen, bases: Path
) -> None:
    """Granite 4's: llama.cpp has its dense models as granite."""
    specimen.base = write_gguf(bases / "granite-4.gguf", "granite", keys={"ssm.conv_kernel": 4})
    specimen.config |= {"task_type": None, "auto_mapping": {"base_model_class": name}}
    specimen.write()
    assert ("BM009" in codes(specimen.report())) == is_told
