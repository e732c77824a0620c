"""Where a head's training goes, beside the published recipe that unties nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment
from converter.errors import ConverterError
from converter.training import run
from converter.training.head import attach, ends_digest, linear_modules_have_bias
from converter.training.settings import Head, TrainingSettings
from converter.training.watch import Unwatched
from converter.transformers_base import is_tied, load_base, quiet, untie
from converter.verification.gguf_weights import weights_of
from fixtures.tiny import TinyModel
from fixtures.trainable import trainable

Settings = Callable[..., TrainingSettings]
ARCHITECTURES = ("llama", "gemma", "gemma3", "qwen2", "gpt2")


def trained_a_little(peft_model: PeftModel) -> PeftModel:
    """Three steps that teach the model to say one token."""
    learning = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    tokens = torch.full((1, 16), 7)
    for _ in range(3):
        optimizer.zero_grad()
        peft_model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    return peft_model


def embedding(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.get_input_embeddings().weight.detach()
    return weight


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_untied_head_learns_and_the_embedding_stays(name: str, settings: Settings) -> None:
    model: Any = load_base(TinyModel(name).hf)
    before = embedding(model).clone()
    with quiet():
        peft_model = trained_a_little(attach(model, settings(head="lora")))
        merged: Any = peft_model.merge_and_unload()
    assert torch.equal(embedding(merged), before)  # bit for bit
    head = merged.get_output_embeddings().weight.detach()
    assert head.untyped_storage().data_ptr() != embedding(merged).untyped_storage().data_ptr()
    assert (head - before).abs().max() > 1e-3
    assert merged.config.tie_word_embeddings is False


def test_the_published_recipe_unties_nothing() -> None:
    """The control: `.data = clone()` leaves one Parameter, and the head's delta goes into the embedding."""
    model: Any = load_base(TinyModel("llama").hf)
    before = embedding(model).clone()
    model.lm_head.weight.data = model.model.embed_tokens.weight.data.clone()
    assert is_tied(model)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "lm_head"])
    with quiet():
        merged = trained_a_little(get_peft_model(model, config)).merge_and_unload()
    assert not torch.equal(embedding(merged), before)


def test_an_untied_head_stays_apart_when_weights_are_tied_again() -> None:
    model: Any = load_base(TinyModel("llama").hf)
    untie(model)
    model.tie_weights()
    assert not is_tied(model)


def test_a_head_that_cannot_be_parted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = load_base(TinyModel("llama").hf)
    own = model.get_input_embeddings()
    monkeypatch.setattr(model, "get_output_embeddings", lambda: own)
    with pytest.raises(ConverterError, match="could not be parted"):
        untie(model)


@pytest.mark.parametrize("head", ["none", "lora", "full", "tied"])
def test_the_base_is_the_same_after_training(head: Head, settings: Settings) -> None:
    model = load_base(TinyModel("llama").hf)
    with quiet():
        peft_model = attach(model, settings(head=head))
        before = ends_digest(peft_model)
        trained_a_little(peft_model)
    assert ends_digest(peft_model) == before
    with torch.no_grad():
        embedding(peft_model.get_base_model())[0, 0] += 1  # the control
    assert ends_digest(peft_model) != before


def test_a_tied_pair_is_one_delta_and_applied_once(settings: Settings, tmp_path: Path) -> None:
    chosen = settings(output=tmp_path / "pair", head="tied")
    run.train(chosen, Unwatched())
    factors = load_file(chosen.output / "adapter_model.safetensors")
    prefix = "base_model.model."
    a, b = (factors[f"{prefix}lm_head.lora_{factor}.weight"].double() for factor in "AB")
    assert torch.equal(factors[f"{prefix}model.embed_tokens.lora_embedding_A"].double(), b.T)
    assert torch.equal(factors[f"{prefix}model.embed_tokens.lora_embedding_B"].double(), a.T)
    delta = chosen.lora_alpha / chosen.r * b @ a
    assert delta.abs().max() > 1e-2
    adapter, base = read_adapter(chosen.output), read_base_model(TinyModel("llama").gguf)
    deployment = Deployment("model", outtype="f32")
    write(plan(adapter, base, deployment), tmp_path / "model.gguf")
    own = embedding(load_base(chosen.base)).double()
    weights = weights_of(read_base_model(tmp_path / "model.gguf"))["token_embd.weight"]
    served = torch.from_numpy(weights.values(slice(0, weights.n_rows))).double()
    assert torch.allclose(served, own + delta, atol=1e-6)
    with quiet():  # the control: PEFT adds it twice
        merged = PeftModel.from_pretrained(load_base(chosen.base), str(chosen.output)).merge_and_unload()
    assert torch.allclose(embedding(merged).double(), own + 2 * delta, atol=1e-5)


def test_biases_are_looked_for_in_what_is_trained() -> None:
    assert linear_modules_have_bias(trainable(TinyModel("qwen2")))
    assert not linear_modules_have_bias(trainable(TinyModel("llama")))
