"""What the survey of tools/tiny_models.py runs: each model's directory, its PEFT adapters, and their logits."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from converter.derive.module_paths import tower_of
from fixtures.cache import cached
from fixtures.survey import SurveyModel
from fixtures.tiny import token_sequences
from fixtures.trained_tokenizers import write_byte_level

Logits = npt.NDArray[np.float32]
N_VOCAB: Final = 320
# No token of an image, whose ids are above.
SEQUENCES: Final = tuple(tuple(4 + token % 290 for token in sequence) for sequence in token_sequences(2))
_SOURCES: Final = ("survey", "more_models", "mapped_gguf", "tiny", "tiny_gguf", "trained_tokenizers")


class Built(NamedTuple):
    """A model and its adapters, in a directory of the cache."""

    directory: Path

    @property
    def hf(self) -> Path:
        return self.directory / "hf"

    @property
    def is_tied(self) -> bool:
        return bool(json.loads((self.directory / "built.json").read_bytes())["tied"])

    @property
    def adapters(self) -> Mapping[str, str]:
        """Those there are, in order; and what PEFT ended with, of the others."""
        found: dict[str, str] = json.loads((self.directory / "built.json").read_bytes())["adapters"]
        return found

    def adapter(self, name: str) -> Path:
        return self.directory / name / "adapter"

    def logits(self, adapter: str = "") -> Logits:
        """Those of transformers, with an adapter or without."""
        logits: Logits = np.load(self.directory / adapter / "logits.npy")
        return logits


def built(model: SurveyModel) -> Built:
    """Build it, or take it from the cache."""
    return Built(cached(f"survey-{model}", lambda directory: _build(model, directory), sources=_SOURCES))


def _build(it: SurveyModel, directory: Path) -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = it.build()
    _save(model, it, directory / "hf")
    np.save(directory / "logits.npy", _logits(model))
    tied = _is_tied(model)
    adapters = {}
    for name, options in _recipes(model, it).items():
        (directory / name).mkdir()
        adapters[name] = _adapter(it.build(), options, directory / name, untied=tied and name == "head")
    (directory / "built.json").write_text(json.dumps({"tied": tied, "adapters": adapters}), encoding="utf-8")


def _save(model: PreTrainedModel, it: SurveyModel, directory: Path) -> None:
    """As a checkpoint that llama.cpp's converter reads; None in ``saved`` takes a field away."""
    model.save_pretrained(directory)
    path = directory / "config.json"
    config = json.loads(path.read_bytes()) | it.saved
    kept = {name: value for name, value in config.items() if value is not None or name not in it.saved}
    path.write_text(json.dumps(kept), encoding="utf-8")
    write_byte_level("llama-bpe", directory, N_VOCAB)
    if it.model_type.startswith("gemma3n"):
        _complete_shared(directory / "model.safetensors")


def _complete_shared(path: Path) -> None:
    """Gemma 3n's last layers reuse keys and values: published checkpoints have theirs, transformers 5 drops them."""
    tensors = load_file(path)
    layers = sorted({key.partition(".self_attn.")[0] for key in tensors if ".self_attn." in key})
    own = next(layer for layer in layers if f"{layer}.self_attn.k_proj.weight" in tensors)
    for layer in layers:
        for part in ("k_proj", "v_proj", "k_norm"):
            tensors.setdefault(f"{layer}.self_attn.{part}.weight", tensors[f"{own}.self_attn.{part}.weight"].clone())
    save_file(tensors, path, {"format": "pt"})


def _recipes(model: PreTrainedModel, it: SurveyModel) -> Mapping[str, Mapping[str, Any]]:
    """LoRA on all linear layers, on those of the text and the head, and on those and all fused experts."""
    ends: Any = model
    head = _name(model, ends.get_output_embeddings())
    linear = [name for name in _linear(model, it) if name != head]
    experts = [name for name, p in model.named_parameters() if p.dim() == 3 and ".experts." in name]
    recipes: dict[str, Mapping[str, Any]] = {
        "all-linear": {"target_modules": it.linear if isinstance(it.linear, str) else list(it.linear)},
        "head": {"target_modules": [*linear, head]},
    }
    return recipes | ({"experts": {"target_modules": linear, "target_parameters": experts}} if experts else {})


def _linear(model: torch.nn.Module, it: SurveyModel) -> list[str]:
    """The linear layers of the text model that PEFT wraps."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
        and tower_of(name) is None
        and (isinstance(it.linear, str) or name.endswith(it.linear))
    ]


def _adapter(model: Any, options: Mapping[str, Any], directory: Path, *, untied: bool) -> str:
    """Make it in ``directory``, and return what PEFT ended with, or nothing."""
    if untied:
        _untie(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            peft = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", **options))
        except (ValueError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        _fill(peft)
        np.save(directory / "logits.npy", _logits(peft))
        peft.save_pretrained(str(directory / "adapter"))
    return ""


def _fill(model: PeftModel) -> None:
    generator = torch.Generator().manual_seed(23)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.4 * parameter.shape[-1] ** -0.5, generator=generator)


def _untie(model: Any) -> None:
    """Give the head a Parameter of its own."""
    head = torch.nn.Parameter(model.get_input_embeddings().get_parameter("weight").detach().clone())
    model.get_output_embeddings().register_parameter("weight", head)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False


def _is_tied(model: Any) -> bool:
    return bool(model.get_output_embeddings().weight is model.get_input_embeddings().weight)


def _name(model: torch.nn.Module, wanted: torch.nn.Module) -> str:
    names: list[str] = [name for name, module in model.named_modules() if module is wanted]
    return names[0]


def _logits(model: torch.nn.Module) -> Logits:
    with torch.no_grad():
        logits: Logits = model(input_ids=torch.tensor(SEQUENCES), use_cache=False).logits.float().numpy()
    return logits
