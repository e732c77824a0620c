"""Tiny models whose elements are numbered, so that what becomes of each can be read in a file made of them.

Each is built twice, with other sizes and with the numbers in another order: what a rewrite does to one by chance, such
as a factor that leads to another element's number, or two sizes that happen to be equal, it doesn't do to both.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, PreTrainedModel

from converter.architectures import ALL_ATTENTION, MODEL_TYPES, WITH_EXPERTS
from converter.derive.layers import all_attend, has_layers_of_experts, with_layer_types
from fixtures.more_models import COMMON, KINDS, fill_randomly
from fixtures.tiny import CONFIGS, MORE, TIED_FOR_GOOD

Codes = npt.NDArray[np.float32]
STEP: Final = 4  # between two numbers: what is added to one of them is seen
_EXACT: Final = 1 << 24  # the largest whole number below which float32 has them all


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind of tiny model: transformers' model type and class, and the fields of its config.

    ``saved`` are fields as published configs spell them.
    """

    name: str
    model_type: str
    fields: Mapping[str, Any]
    auto: str = "AutoModelForCausalLM"
    saved: Mapping[str, Any] = field(default_factory=dict)
    turned_experts: bool = False  # in published checkpoints

    def __str__(self) -> str:
        return self.name

    @property
    def table(self) -> str:
        """The table of such models."""
        fields = with_layer_types(self.fields)
        other = ALL_ATTENTION.get(self.model_type) if all_attend(fields) else None
        other = WITH_EXPERTS.get(self.model_type) if has_layers_of_experts(fields) else other
        return other or MODEL_TYPES[self.model_type]


def _wrapped(name: str, model_type: str, text: Mapping[str, Any]) -> Subject:
    """A multimodal model around a text model."""
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Subject(name, model_type, {"text_config": text, "vision_config": vision}, "AutoModelForImageTextToText")


# What fixtures.tiny's configs lack, as published ones have it.
_SAVED: Final[Mapping[str, Mapping[str, Any]]] = {"gpt2": {"n_ctx": 512}, "cohere2": {"rotary_pct": 1.0}}

# What the graph takes for granted makes of Gemma 3n more than float32 can number.
_SMALLER: Final[Mapping[str, Any]] = {
    "num_hidden_layers": 5,
    "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"],
    "hidden_size_per_layer_input": 32,
    "num_kv_shared_layers": 1,
    "laurel_rank": 64,  # which the graph takes for granted
    "activation_sparsity_pattern": [0.95] + [0.0] * 4,
}

# A model of each table, under the name of the fixture that real llama.cpp runs.
SUBJECTS: Final[Mapping[str, Subject]] = {
    **{
        name: Subject(name, model_type, fields, saved=_SAVED.get(name, {}))
        for name, (model_type, fields) in {**CONFIGS, **MORE}.items()
    },
    **{
        name: Subject(name, kind.model_type, kind.fields, kind.auto, kind.saved, kind.turned_experts)
        for name, kind in KINDS.items()
    },
    "deepseek2-whole": Subject("deepseek2-whole", "deepseek_v3", {**KINDS["deepseek2"].fields, "q_lora_rank": None}),
    "gemma3n": Subject("gemma3n", "gemma3n_text", {**KINDS["gemma3n"].fields, **_SMALLER}),
    "mistral3": _wrapped("mistral3", "mistral3", {"model_type": "mistral", **COMMON, "head_dim": 24}),
}

# Models that llama.cpp's loader, or lfm2moe's converter, knows no head of.
TIED: Final = (*TIED_FOR_GOOD, "lfm2moe")

# Half as much again, so that sizes which are different stay so. Heads of 2 become 3, and experts 5 of 4.
_LARGER: Final = (
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "hidden_size_per_layer_input",
    "num_attention_heads",
    "num_kv_heads",
    "num_key_value_heads",
    "shared_intermediate_size",
    "mamba_d_head",
    "mamba_d_state",
    "state_size",
    "time_step_rank",
    "mamba_dt_rank",
    "num_heads",
    "mamba_d_ssm",
    "mamba_head_dim",
    "ssm_state_size",
    "moe_shared_expert_intermediate_size",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "n_embd",
    "n_inner",
    "n_head",
)
_ONE_MORE: Final = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "n_shared_experts",
    "moe_num_experts",
    "moe_num_shared_experts",
    "num_hidden_layers",
)
_BY_LAYER: Final = frozenset({"layer_types", "mlp_layer_types", "layers_block_type"})


def with_other_sizes(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a model with other sizes."""
    found = {}
    for name, value in fields.items():
        if name == "text_config":
            found[name] = with_other_sizes(value)
        elif name in _LARGER and value:
            found[name] = value if value % 2 else value * 3 // 2
        elif name in _ONE_MORE and value and (name != "num_hidden_layers" or fields.keys().isdisjoint(_BY_LAYER)):
            found[name] = value + 1
        else:
            found[name] = value
    return found


@dataclass(frozen=True, slots=True)
class CodedModel:
    """A model in ``directory``, and the numbers of its elements: by parameter, and by tensor of its checkpoint."""

    subject: Subject
    directory: Path
    parameters: Mapping[str, Codes]
    stored: Mapping[str, Codes] = field(default_factory=dict)

    @property
    def gguf(self) -> Path:
        return self.directory.with_suffix(".gguf")

    @property
    def halved(self) -> Path:
        """The GGUF in F16: what is F32 in it is so for good."""
        return self.directory.with_suffix(".f16.gguf")


def coded(subject: Subject, directory: Path, *, other: bool = False) -> CodedModel:
    """Build and save it; ``other`` is the second time."""
    fields = with_other_sizes(subject.fields) if other else subject.fields
    model = built(subject, fields)
    parameters = {**dict(model.named_parameters()), **_codable_buffers(model)}
    n = sum(parameter.numel() for parameter in parameters.values())
    if n * STEP >= _EXACT:
        raise ValueError(f"{subject} has {n} elements, of which float32 can't number so many")
    numbers = np.random.default_rng(11).permutation(n) if other else np.arange(n)
    _fill(parameters, (numbers + 1) * STEP)
    save(model, subject, directory)
    values = {name: parameter.detach().numpy() for name, parameter in parameters.items()}
    values = dict(_turned(values)) if subject.turned_experts else values
    stored = {key: array for file in directory.glob("*.safetensors") for key, array in load_file(file).items()}
    return CodedModel(subject, directory, values, stored)


def random(subject: Subject, directory: Path) -> None:
    """Save it with random numbers."""
    model = built(subject, subject.fields)
    fill_randomly(model, subject.name)
    save(model, subject, directory)


def save(model: PreTrainedModel, subject: Subject, directory: Path) -> None:
    """As a checkpoint that llama.cpp's converter reads."""
    model.save_pretrained(directory)
    if subject.turned_experts:
        for file in directory.glob("*.safetensors"):
            save_file(_turned(load_file(file)), file, {"format": "pt"})
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | subject.saved
    config = {name: value for name, value in config.items() if value is not None or name not in subject.saved}
    path.write_text(json.dumps(config), encoding="utf-8")
    # What it asks of a vocabulary is how large it is.
    words = {str(i): i for i in range(model.config.get_text_config().vocab_size)}
    tokenizer = {"model": {"vocab": words}, "added_tokens": []}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def _turned(values: Mapping[str, Codes]) -> dict[str, Codes]:
    """With fused experts as (in, out), as published checkpoints of some models have them."""
    return {
        name: np.ascontiguousarray(array.swapaxes(1, 2)) if ".experts." in name and array.ndim == 3 else array
        for name, array in values.items()
    }


def built(subject: Subject, fields: Mapping[str, Any]) -> PreTrainedModel:
    """The model as transformers initialises it, in F32."""
    config = AutoConfig.for_model(subject.model_type, **fields, tie_word_embeddings=subject.name in TIED)
    auto: Any = getattr(transformers, subject.auto)
    model: PreTrainedModel = auto.from_config(config, dtype=torch.float32)
    return model


def _codable_buffers(model: PreTrainedModel) -> Mapping[str, torch.Tensor]:
    """What is saved beside parameters, such as a correction that experts are chosen by."""
    saved = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name in saved and buffer.is_floating_point()}


# What llama.cpp keeps as -exp(x): the logarithms of small numbers, each another one.
LOGARITHMS: Final = ("A_log",)


def _fill(parameters: Mapping[str, torch.Tensor], numbers: npt.NDArray[np.int64]) -> None:
    begin, n_logarithms = 0, 0
    with torch.no_grad():
        for name, parameter in parameters.items():
            end = begin + parameter.numel()
            values = numbers[begin:end].astype(np.float32)
            if name.endswith(LOGARITHMS):
                values = np.log(1.0 + n_logarithms + np.argsort(values)).astype(np.float32)
                n_logarithms += len(values)
            parameter.copy_(torch.from_numpy(values.reshape(tuple(parameter.shape))))
            begin = end
