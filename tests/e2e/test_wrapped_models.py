"""The text model within a multimodal one, and a model without its head: their bases and adapters are the text model's.

Each has the very numbers of a tiny text model, whose GGUF is what llama.cpp serves.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

import converter
from converter import ConverterError, DeployedLora, DeployedModel, Deployment, Refused
from converter.report.commands import command, proof_command
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel

pytestmark = pytest.mark.llama

PREFIX = "base_model.model."
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
# The model type around a tiny text model, its further settings, and how its adapter's keys begin.
MULTIMODAL = {
    "gemma3": ("gemma3", {"mm_tokens_per_image": 4, "image_token_index": 319}, "model.language_model."),
    "smolvlm": ("llama", {"image_token_id": 319, "scale_factor": 2}, "model.text_model."),
    "mistral3": ("mistral", {"image_token_index": 319}, "model.language_model."),
}


def renamed_adapter(directory: Path, base: TinyModel, rename: Callable[[str], str], **changes: object) -> Path:
    plain = tiny_adapter("plain", base)
    directory.mkdir()
    config = json.loads((plain / "adapter_config.json").read_text(encoding="utf-8")) | changes
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = {rename(key): values for key, values in load_file(plain / "adapter_model.safetensors").items()}
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


def multimodal_base(model_type: str, directory: Path) -> Path:
    name, settings, _ = MULTIMODAL[model_type]
    text: torch.nn.Module = AutoModelForCausalLM.from_pretrained(TinyModel(name).hf)
    config = AutoConfig.for_model(
        model_type,
        text_config=json.loads((TinyModel(name).hf / "config.json").read_text(encoding="utf-8")),
        vision_config=VISION,
        tie_word_embeddings=True,
        **settings,
    )
    from_config: Callable[..., Any] = AutoModelForImageTextToText.from_config
    whole = from_config(config)
    inner = whole.model.text_model if model_type == "smolvlm" else whole.model.language_model
    inner.load_state_dict(text.get_submodule("model").state_dict())
    whole.tie_weights()
    whole.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("model_type", MULTIMODAL)
def test_a_multimodal_models_text_adapter_is_proven(model_type: str, tmp_path: Path) -> None:
    name, _, wrapper = MULTIMODAL[model_type]
    tiny = TinyModel(name)
    base = multimodal_base(model_type, tmp_path / "base")
    directory = renamed_adapter(
        tmp_path / "adapter", tiny, lambda key: key.replace(f"{PREFIX}model.", f"{PREFIX}{wrapper}")
    )
    adapter = converter.read_adapter(directory)
    (lora,) = converter.convert(adapter, tmp_path / "lora.gguf", base=tiny.gguf)
    assert converter.verify(adapter, base, DeployedLora(lora.path, tiny.gguf)).passed
    (model,) = converter.convert(adapter, tmp_path / "model.gguf", base=tiny.gguf, deployment=Deployment("model"))
    assert converter.verify(adapter, base, DeployedModel(model.path)).passed
    # llama.cpp may call the graph of the directory by another name (mistral3): its tensors are the same.
    planned = [converter.plan(adapter, converter.read_base(path)).files[0].tensors for path in (base, tiny.gguf)]
    assert planned[0] == planned[1]
    assert not converter.verify(adapter, base, DeployedModel(tiny.gguf)).passed, "the control: no adapter"


TOWER = f"{PREFIX}model.vision_tower.encoder.layers.0.self_attn.q_proj"
PROJECTOR = f"{PREFIX}model.multi_modal_projector.mm_soft_emb_norm.weight"


def adapter_of_a_tower_too(directory: Path) -> Path:
    """A LoRA on the text model and on its vision tower, with a projector's norm saved whole."""
    renamed_adapter(
        directory,
        TinyModel("gemma3"),
        lambda key: key.replace("model.model.", "model.model.language_model."),
        modules_to_save=["mm_soft_emb_norm"],
    )
    weights = directory / "adapter_model.safetensors"
    factors = {
        f"{TOWER}.lora_{side}.weight": torch.ones(shape).numpy() for side, shape in (("A", (8, 32)), ("B", (32, 8)))
    }
    save_file({**load_file(weights), **factors, PROJECTOR: torch.ones(32).numpy()}, weights)
    return directory


def test_the_text_part_is_served_and_proven_on_the_users_word(tmp_path: Path) -> None:
    tiny, base = TinyModel("gemma3"), multimodal_base("gemma3", tmp_path / "base")
    directory = adapter_of_a_tower_too(tmp_path / "adapter")
    with pytest.raises(Refused, match=r": LO007, LO020$"):
        converter.plan(converter.read_adapter(directory), converter.read_base(tiny.gguf))
    adapter = converter.read_adapter(directory, text_only=True)
    report = converter.check(adapter, converter.read_base(base))
    assert report.passed
    (told,) = (skip.reason for skip in report.skipped if skip.code == "LO020")
    assert "2 tensors of vision_tower" in told
    assert "1 tensors of multi_modal_projector" in told
    assert "--text-only" in (command(report, "lora") or "")
    with converter.plan(adapter, converter.read_base(base)) as planned:
        assert "--text-only" in proof_command(planned, tmp_path / "lora.gguf")
        left_out = {line.key for line in planned.ledger if line.fate == "left out"}
        assert left_out == {f"{TOWER}.lora_A.weight", f"{TOWER}.lora_B.weight", PROJECTOR}
        (lora,) = converter.write(planned, tmp_path / "lora.gguf")
    assert converter.verify(adapter, base, DeployedLora(lora.path, tiny.gguf)).passed
    (model,) = converter.convert(adapter, tmp_path / "model.gguf", base=tiny.gguf, deployment=Deployment("model"))
    assert converter.verify(adapter, base, DeployedModel(model.path, tiny.gguf)).passed
    assert not converter.verify(adapter, base, DeployedModel(tiny.gguf)).passed, "the control: no adapter"


def test_an_adapter_of_nothing_but_a_tower_has_no_text_part(tmp_path: Path) -> None:
    directory = adapter_of_a_tower_too(tmp_path / "adapter")
    weights = directory / "adapter_model.safetensors"
    save_file({key: values for key, values in load_file(weights).items() if TOWER in key}, weights)
    adapter = converter.read_adapter(directory, text_only=True)
    assert "LO020" in {finding.code for finding in converter.check(adapter).findings}


def test_a_tower_that_the_adapter_changes_is_not_passed_over(tmp_path: Path) -> None:
    base = multimodal_base("gemma3", tmp_path / "base")
    directory = adapter_of_a_tower_too(tmp_path / "adapter")
    adapter = converter.read_adapter(directory)
    with pytest.raises(ConverterError, match="vision_tower"):
        converter.verify(adapter, base, DeployedModel(TinyModel("gemma3").gguf))


def bare_base(directory: Path, tiny: TinyModel) -> Path:
    directory.mkdir()
    (directory / "config.json").write_bytes((tiny.hf / "config.json").read_bytes())
    tensors = load_file(tiny.hf / "model.safetensors")
    bare = {key.removeprefix("model."): values for key, values in tensors.items()}
    save_file(bare, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_a_base_and_an_adapter_of_a_bare_model_are_proven(tmp_path: Path) -> None:
    tiny = TinyModel("qwen3")
    base = bare_base(tmp_path / "base", tiny)
    directory = renamed_adapter(
        tmp_path / "adapter",
        tiny,
        lambda key: key.replace(f"{PREFIX}model.", PREFIX),
        task_type="FEATURE_EXTRACTION",
    )
    adapter = converter.read_adapter(directory)
    (lora,) = converter.convert(adapter, tmp_path / "lora.gguf", base=base)
    assert converter.verify(adapter, base, DeployedLora(lora.path, tiny.gguf)).passed
    (model,) = converter.convert(adapter, tmp_path / "model.gguf", base=tiny.gguf, deployment=Deployment("model"))
    assert converter.verify(adapter, base, DeployedModel(model.path)).passed
