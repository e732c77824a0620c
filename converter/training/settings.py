"""Every setting of a training run, by the names that PEFT, trl and transformers give them. Plain data, without torch.

PEFT: LoraConfig in peft/tuners/lora/config.py; trl: SFTConfig in trl/trainer/sft_config.py.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from converter.diagnostics import Deployment, Kind
from converter.errors import ConverterError

Head = Literal["none", "lora", "full", "tied"]
Bias = Literal["none", "lora_only", "all"]
Loss = Literal["completion", "assistant", "all"]
Overlong = Literal["refuse", "drop", "truncate"]
Dtype = Literal["auto", "float32", "bfloat16"]

HEADS: Final[tuple[Head, ...]] = ("none", "lora", "full", "tied")
# How each choice of head is served: one of its own needs a model that has it.
_TARGET_OF: Final[dict[Head, Kind]] = {"none": "lora", "lora": "untie-model", "full": "untie-model", "tied": "model"}


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """One run. ``target`` is the deployment it is for; None is what suits the settings.

    ``batch_size`` is in samples of one optimizer step, over all processes and accumulation steps;
    ``per_device_train_batch_size`` is what one process computes at a time, at most. ``eval_split`` is the share of
    ``data`` held out where there is no ``eval_data``. ``max_steps`` 0 leaves the length to ``num_train_epochs``,
    ``save_steps`` 0 keeps no checkpoints, ``eval_steps`` 0 evaluates once an epoch, ``early_stopping_patience`` 0 never
    stops early.
    """

    base: Path
    data: str
    output: Path
    head: Head = "none"
    target: Kind | None = None
    # LoRA, as PEFT names it
    r: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.05
    use_rslora: bool = False
    bias: Bias = "none"
    lora_bias: bool = False
    save_embedding_layers: bool = False
    # Data
    eval_data: str | None = None
    eval_split: float = 0.1
    loss: Loss = "completion"
    max_length: int = 1024
    overlong: Overlong = "refuse"
    packing: bool = False
    chat_template: Path | None = None
    general_text: Path | None = None
    # Optimisation
    learning_rate: float = 2e-4
    num_train_epochs: float = 3.0
    max_steps: int = 0
    batch_size: int = 8
    per_device_train_batch_size: int = 4
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    # Machine
    dtype: Dtype = "auto"
    bf16: bool = False
    gradient_checkpointing: bool = False
    # The course of the run
    logging_steps: int = 1
    eval_steps: int = 0
    save_steps: int = 0
    early_stopping_patience: int = 0
    resume: bool = False

    @property
    def deployment(self) -> Deployment:
        """What the adapter is to become: the target, or what serves such an adapter at the least cost."""
        has_bias = self.lora_bias or self.bias != "none"  # a LoRA GGUF can't hold one
        kind = self.target or ("model" if has_bias and self.head == "none" else _TARGET_OF[self.head])
        return Deployment.of(kind)


def working_directory(output: Path) -> Path:
    """Where a run's files lie until its adapter is whole."""
    return output.with_name(f"{output.name}.training")


def settings_toml(settings: TrainingSettings) -> str:
    """The settings as a file that ``adapter-train --config`` reads."""
    values = ((field.name, getattr(settings, field.name)) for field in fields(settings))
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values if value is not None)


def settings_data(settings: TrainingSettings) -> dict[str, Any]:
    """The settings as JSON has them."""
    values = ((field.name, getattr(settings, field.name)) for field in fields(settings))
    return {name: str(value) if isinstance(value, Path) else value for name, value in values}


def _toml(value: object) -> str:
    # JSON's strings, integers and booleans are TOML's too; its floats have no infinity.
    if isinstance(value, float):
        return repr(value)
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def check_settings(settings: TrainingSettings) -> None:
    """Raise ConverterError where a setting can't be, or contradicts another."""
    if settings.lora_alpha == 0:
        raise ConverterError("--lora-alpha is 0: the adapter would have no effect; give another")
    if settings.save_embedding_layers and settings.head != "lora":
        raise ConverterError(
            f"--save-embedding-layers is for --head lora: with {settings.head} there is no copy to save"
        )
    if settings.dtype == "bfloat16" and (settings.head == "full" or settings.bias != "none"):
        raise ConverterError(
            "--dtype bfloat16: a whole head and the base's biases would be trained in it, which rounds small steps "
            "away; use --dtype float32, with --bf16 for speed"
        )
