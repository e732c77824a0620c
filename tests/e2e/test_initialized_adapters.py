"""PiSSA and OLoRA saved as trained: what they took out of the base is subtracted again exactly, or they are refused."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from converter.cli.to_gguf import main
from converter.verification.llama_cpp import LlamaCpp
from fixtures.adapters import LINEAR, load_base, untie
from fixtures.measure import kl
from fixtures.tiny import TinyModel, token_sequences

pytestmark = pytest.mark.llama

LARGEST_RATIO = 1e-4
CONV1D = ("c_attn", "c_proj", "c_fc")


@dataclass(frozen=True, slots=True)
class Trained:
    """An adapter with what it began with, and the logits of base and PEFT as it was saved."""

    adapter: Path
    initial: Path
    base_logits: np.ndarray
    peft_logits: np.ndarray

    def ratio(self, served: list[np.ndarray]) -> float:
        found = np.stack(served)
        return kl(self.peft_logits, found) / kl(self.peft_logits, self.base_logits)


@dataclass(frozen=True, slots=True)
class Run:
    """How an adapter is trained, and on what."""

    initialization: str
    name: str = "llama"
    config: Mapping[str, Any] = field(default_factory=dict)

    def trained(self, directory: Path) -> Trained:
        model = load_base(TinyModel(self.name).hf)
        base_logits = logits(model)
        targets = [*(CONV1D if self.name == "gpt2" else LINEAR), *(["lm_head"] if "lm_head" in self.config else [])]
        if "lm_head" in self.config:
            untie(model)
        options = {key: value for key, value in self.config.items() if key != "lm_head"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config: Any = LoraConfig(lora_alpha=16, target_modules=targets, **options)
            config.init_lora_weights = self.initialization
            peft = get_peft_model(model, config).eval()
            # As PEFT's guide to PiSSA saves it: marked as one that needs no initialisation.
            config.init_lora_weights = True
            peft.save_pretrained(str(directory / "initial"))
            config.init_lora_weights = self.initialization
            move(peft)
            peft.save_pretrained(str(directory / "adapter"))
        return Trained(directory / "adapter", directory / "initial", base_logits, logits(peft))


def move(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(31)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * parameter.std() * torch.randn(parameter.shape, generator=generator))


def logits(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(torch.tensor(token_sequences())).logits.numpy()
    return found


def convert(trained: Trained, base: Path, output: Path, *options: str) -> tuple[int, str]:
    arguments = [str(trained.adapter), "--base", str(base), "-o", str(output), *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    return result.exit_code, result.output


EXACT = {
    **{f"{kind} on {name}": Run(kind, name) for kind in ("pissa", "olora") for name in ("llama", "qwen2", "gemma3")},
    "pissa on gpt2": Run("pissa", "gpt2"),
    "pissa with DoRA": Run("pissa", config={"use_dora": True}),
    "pissa with rsLoRA and patterns": Run(
        "pissa", config={"use_rslora": True, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v_proj": 32}}
    ),
    "olora of the head": Run("olora", config={"lm_head": True}),
}


@pytest.mark.parametrize("run", EXACT.values(), ids=EXACT)
def test_what_training_began_with_is_computed_again(run: Run, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    trained, base = run.trained(tmp_path), TinyModel(run.name)
    options = ["--untie"] if "lm_head" in run.config else ["--to", "model"]
    for given in ([], ["--initial-adapter", str(trained.initial)]):
        status, said = convert(trained, base.gguf, tmp_path / "model.gguf", *options, *given)
        assert status == 0, said
        assert trained.ratio(llama_cpp.logits(tmp_path / "model.gguf", token_sequences())) <= LARGEST_RATIO


@pytest.mark.parametrize("given", [True, False])
def test_a_lora_file_has_both_factors(given: bool, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    trained, base = Run("pissa").trained(tmp_path), TinyModel("llama")
    options = ["--initial-adapter", str(trained.initial)] if given else []
    status, said = convert(trained, base.gguf, tmp_path / "lora.gguf", *options)
    assert status == 0, said
    served = llama_cpp.logits(base.gguf, token_sequences(), lora=tmp_path / "lora.gguf")
    assert trained.ratio(served) <= LARGEST_RATIO


def test_a_random_beginning_has_to_be_given(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    trained, base = Run("pissa_niter_4").trained(tmp_path), TinyModel("llama")
    status, said = convert(trained, base.gguf, tmp_path / "model.gguf", "--to", "model")
    assert status == 1
    assert "CF012" in said
    options = ["--to", "model", "--initial-adapter", str(trained.initial)]
    assert convert(trained, base.gguf, tmp_path / "model.gguf", *options)[0] == 0
    assert trained.ratio(llama_cpp.logits(tmp_path / "model.gguf", token_sequences())) <= LARGEST_RATIO


def trained_itself(trained: Trained) -> Path:
    return trained.adapter


def of_another_base(trained: Trained) -> Path:
    """Factors of the same shapes that no decomposition of this base has."""
    path = trained.initial / "adapter_model.safetensors"
    save_file({key: torch.randn(values.shape) for key, values in load_file(path).items()}, path)
    return trained.initial


def without_a_module(trained: Trained) -> Path:
    path = trained.initial / "adapter_model.safetensors"
    save_file({key: values for key, values in load_file(path).items() if "layers.1.mlp.up_proj" not in key}, path)
    return trained.initial


@pytest.mark.parametrize("given", [trained_itself, of_another_base, without_a_module])
def test_a_wrong_beginning_is_refused(given: Callable[[Trained], Path], tmp_path: Path) -> None:
    trained = Run("pissa").trained(tmp_path)
    options = ["--to", "model", "--initial-adapter", str(given(trained))]
    status, said = convert(trained, TinyModel("llama").gguf, tmp_path / "model.gguf", *options)
    assert status == 1
    assert "CF014" in said or (given is without_a_module and "LO0" in said)
    assert not (tmp_path / "model.gguf").exists()


def test_what_cannot_be_told_from_the_base_is_refused(tmp_path: Path) -> None:
    """An adapter that training moved by less than the float32 of its beginning."""
    trained = Run("pissa").trained(tmp_path)
    (trained.initial / "adapter_model.safetensors").replace(trained.adapter / "adapter_model.safetensors")
    status, said = convert(trained, TinyModel("llama").gguf, tmp_path / "model.gguf", "--to", "model")
    assert (status, "CF012" in said) == (1, True)
