"""The reference against the logits that PEFT gave at the moment of saving: reloading must lose nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from converter.derive.adapter import read_adapter
from converter.errors import ConverterError
from converter.transformers_base import load_base
from converter.verification.reference import Reference
from fixtures.adapters import RECIPES, saved_logits, tiny_adapter
from fixtures.tiny import TinyModel, token_sequences

BASE = TinyModel("llama")
UP_PROJ = "model.layers.1.mlp.up_proj"


def reference_of(recipe: str, base: TinyModel = BASE) -> Reference:
    return Reference(base.hf, read_adapter(tiny_adapter(recipe, base)))


def rewritten(recipe: str, directory: Path, **renamed: str) -> Path:
    """A copy of an adapter with keys renamed: parts of keys to their replacements."""
    shutil.copytree(tiny_adapter(recipe, BASE), directory)
    path = directory / "adapter_model.safetensors"
    tensors = load_file(path)
    for old, new in renamed.items():
        tensors = {key.replace(old, new): values for key, values in tensors.items()}
    save_file(tensors, path)
    return directory


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_kind_of_adapter_is_as_it_was_saved(recipe: str) -> None:
    reference = reference_of(recipe)
    base, peft = saved_logits(tiny_adapter(recipe, BASE))
    for sequence, base_logits, peft_logits in zip(token_sequences(), base, peft, strict=True):
        assert np.array_equal(reference.logits(sequence), peft_logits)
        assert np.array_equal(reference.base_logits(sequence), base_logits)


@pytest.mark.parametrize("recipe", ["plain", "rslora", "patterns", "embed_and_head", "foreign_base_layer"])
def test_a_weight_is_the_base_and_the_delta(recipe: str) -> None:
    reference = reference_of(recipe)
    rows = np.array([5, 0, 17])
    for module in sorted(reference.pairs):
        name = f"{module}.weight"
        own = reference.weight(name, rows) - reference.delta(module, rows)
        if not (recipe == "foreign_base_layer" and module == "lm_head"):
            assert np.abs(own - reference.base_weight(name, rows)).max() < 1e-15


def test_a_foreign_base_layer_is_the_heads_own_and_not_the_bases() -> None:
    reference, rows = reference_of("foreign_base_layer"), slice(0, 320)
    embedding = reference.base_weight("model.embed_tokens.weight", rows)
    assert np.array_equal(reference.base_weight("lm_head.weight", rows), embedding)
    assert np.array_equal(reference.weight("model.embed_tokens.weight", rows), embedding)
    head = reference.weight("lm_head.weight", rows) - reference.delta("lm_head", rows)
    assert np.abs(head - embedding).max() > 0.1


def test_a_delta_in_blocks_is_the_whole_one_in_float64() -> None:
    reference = reference_of("embed_and_head")
    for module in ("model.embed_tokens", "lm_head"):
        whole = reference.delta(module, slice(None))
        assert whole.dtype == np.float64
        assert np.array_equal(whole[7:9], reference.delta(module, slice(7, 9)))
        assert np.abs(whole - whole.astype(np.float32)).max() > 0  # computed, not cast, in float64


def test_a_saved_module_changes_the_weight_alone() -> None:
    reference, name = reference_of("saved_lm_head"), "lm_head.weight"
    assert np.abs(reference.weight(name, slice(None)) - reference.base_weight(name, slice(None))).max() > 0.1
    assert name in reference.touched
    assert "lm_head" not in reference.pairs


def test_a_tied_pair_stays_tied() -> None:
    reference = reference_of("tied_pair")
    head, embedding = (reference.weight(f"{m}.weight", slice(None)) for m in ("lm_head", "model.embed_tokens"))
    assert np.allclose(head, embedding, rtol=0, atol=1e-15)


def test_prefixes_of_a_multimodal_model_are_read(tmp_path: Path) -> None:
    wrapped = rewritten("plain", tmp_path / "a", **{"model.model.layers": "model.model.language_model.layers"})
    reference = Reference(BASE.hf, read_adapter(wrapped))
    _, peft = saved_logits(tiny_adapter("plain", BASE))
    assert np.array_equal(reference.logits(token_sequences()[0]), peft[0])


def test_a_key_that_peft_has_no_place_for_is_refused(tmp_path: Path) -> None:
    stray = rewritten("plain", tmp_path / "a", **{"layers.1.mlp.up_proj": "layers.9.mlp.up_proj"})
    with pytest.raises(ConverterError, match=r"layers\.9\.mlp\.up_proj"):
        Reference(BASE.hf, read_adapter(stray))


def test_a_pair_that_is_not_one_is_refused(tmp_path: Path) -> None:
    # ensure_weight_tying holds one pair of factors for both ends: of two different ones PEFT would keep one.
    directory = rewritten("tied_pair", tmp_path / "a")
    path = directory / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["base_model.model.lm_head.lora_B.weight"] += 0.1
    save_file(tensors, path)
    with pytest.raises(ConverterError, match="overwritten"):
        Reference(BASE.hf, read_adapter(directory))


def test_a_wrong_shape_is_one_clear_line(tmp_path: Path) -> None:
    directory = rewritten("plain", tmp_path / "a")
    path = directory / "adapter_model.safetensors"
    key = f"base_model.model.{UP_PROJ}.lora_B.weight"
    save_file({**load_file(path), key: torch.zeros(3, 8)}, path)
    with pytest.raises(ConverterError, match="PEFT can't load this adapter"):
        Reference(BASE.hf, read_adapter(directory))


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "qwen2", "qwen3"])
def test_a_gguf_base_is_the_directory(name: str) -> None:
    # Head sizes, windows and Gemma's attention scale differ from transformers' defaults in these models.
    base = TinyModel(name)
    tokens = torch.tensor(token_sequences())
    with torch.no_grad():
        assert torch.equal(load_base(base.gguf)(tokens).logits, load_base(base.hf)(tokens).logits)


def test_a_gguf_that_transformers_does_not_read_says_what_to_give() -> None:
    with pytest.raises(ConverterError, match=r"give the Hugging Face directory .* with --base-gguf"):
        load_base(TinyModel("gemma").gguf)


def test_a_base_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    shutil.copytree(BASE.hf, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    tensors = load_file(path)
    del tensors[f"{UP_PROJ}.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ConverterError, match=r"lacks weights .*layers\.1\.mlp\.up_proj"):
        load_base(tmp_path / "base")


def test_a_directory_that_is_no_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConverterError, match="can't load this base"):
        load_base(tmp_path)


def test_a_mistyped_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="nowhere: no such base"):
        load_base(tmp_path / "nowhere")
