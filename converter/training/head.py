"""What becomes of the head: left alone, trained as a tensor of its own, or trained as one with the embedding.

PEFT 0.21.2: LoraConfig.ensure_weight_tying, and _maybe_include_all_linear_layers in peft/tuners/tuners_utils.py.
The pair is parted by a new Parameter, before PEFT attaches anything.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PretrainedConfig, PreTrainedModel

from converter.errors import ConverterError
from converter.training.settings import Head, TrainingSettings
from converter.transformers_base import head_of, is_tied, load_config, quiet, shell, untie

_OWN: Final[tuple[Head, ...]] = ("lora", "full")


def attach(model: PreTrainedModel, settings: TrainingSettings) -> PeftModel:
    """Prepare the head as the settings say, and attach the LoRA. The base's parameters are frozen.

    Raises ConverterError where the base hasn't the head or the biases that the settings want.
    """
    linear = _linear_modules(model.config)
    if settings.bias == "lora_only" and not _have_bias(model, linear):
        raise ConverterError(
            f"{settings.base}: its linear modules have no biases, so bias = lora_only would train nothing; "
            "use lora_bias, or leave the bias out"
        )
    if settings.head in _OWN:
        untie(model)
    if settings.head == "tied" and not is_tied(model):
        raise ConverterError(f"{settings.base}: its head is not tied to its embedding; use --head lora or full")
    model.name_or_path = str(settings.base)  # what PEFT writes down; transformers calls a GGUF by its directory
    torch.manual_seed(settings.seed)  # lora_A starts at random
    return get_peft_model(model, _config(settings, linear, *_ends(model)))


def head_is_adapted(model: PeftModel) -> bool:
    """Whether PEFT has wrapped the head, with a LoRA or as a saved module."""
    head = head_of(model.get_base_model())
    return isinstance(head, BaseTunerLayer) or hasattr(head, "modules_to_save")


def ends_digest(model: PeftModel) -> str:
    """SHA-256 of the base's own embedding and head, below whatever PEFT has put around them."""
    base: Any = model.get_base_model()
    digest = sha256()
    for module in (base.get_input_embeddings(), head_of(base)):
        weight = _below(module).weight.detach().contiguous()
        digest.update(weight.view(torch.uint8).cpu().numpy())
    return digest.hexdigest()


def _below(module: Any) -> Any:
    for name in ("base_layer", "original_module"):
        module = getattr(module, name, module)
    return module


def _linear_modules(config: PretrainedConfig) -> tuple[str, ...]:
    """What PEFT's all-linear is in this architecture, as PEFT itself writes it out."""
    peft_model = get_peft_model(shell(config), LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    modules: Any = peft_model.peft_config["default"].target_modules  # type: ignore[attr-defined]  # a LoraConfig
    return tuple(sorted(modules))


def linear_modules_have_bias(base: Path) -> bool:
    """Whether any of the modules that all-linear trains has a bias in this base."""
    config = load_config(base)
    with quiet():
        return _have_bias(shell(config), _linear_modules(config))


def _have_bias(model: PreTrainedModel, linear: tuple[str, ...]) -> bool:
    named = (module for name, module in model.named_modules() if name.endswith(linear))
    return any(getattr(module, "bias", None) is not None for module in named)


def _ends(model: PreTrainedModel) -> tuple[str, str]:
    """The names of embedding and head in their parents."""
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    return names[id(model.get_input_embeddings())], names[id(head_of(model))]


def _config(settings: TrainingSettings, linear: tuple[str, ...], embedding: str, head: str) -> LoraConfig:
    ends: dict[Head, tuple[str, ...]] = {"none": (), "lora": (head,), "full": (), "tied": (embedding, head)}
    return LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=[*linear, *ends[settings.head]],
        modules_to_save=[head] if settings.head == "full" else None,
        ensure_weight_tying=settings.head == "tied",
        r=settings.r,
        lora_alpha=_alpha(settings),
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        bias=settings.bias,
        lora_bias=settings.lora_bias,
    )


def _alpha(settings: TrainingSettings) -> Any:
    # PEFT computes with any number, and writes integers by habit.
    return int(settings.lora_alpha) if float(settings.lora_alpha).is_integer() else settings.lora_alpha
