"""The base model in transformers, from a Hugging Face directory or a GGUF: what is trained, and what proofs stand on.

A GGUF base is dequantised by transformers, whose reader takes some fields from defaults instead of the file
(transformers/integrations/ggml.py, GGUF_CONFIG_MAPPING); those are set from the file's metadata here.

A base's own Python (auto_map, custom_generate) is never run, whatever answers on stdin: transformers asks there unless
trust_remote_code is False.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from threading import RLock
from typing import Any, Final

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from converter.errors import ConverterError
from converter.read.base_weights import refuse_others
from converter.read.gguf_header import Scalar, read_gguf_header

# transformers and PEFT change torch's defaults while they build a model: one thread at a time.
_BUILDING: Final = RLock()

# GGUF key below the architecture, and the config fields it decides. Gemma scales attention by head_dim ** -0.5.
_FROM_METADATA: Final[Mapping[str, tuple[str, ...]]] = {
    "attention.key_length": ("head_dim", "query_pre_attn_scalar"),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
}
# The 27B models alone scale by hidden / heads; llama.cpp knows them by their depth (gemma2.cpp, gemma3.cpp).
_GEMMA_27B_LAYERS: Final = {"gemma2": 46, "gemma3_text": 62}
# Where transformers looks for an adapter to put on a base as it loads it (find_adapter_config_file): nowhere.
_NO_ADAPTER: Final = {"subfolder": "no adapter of the base's own"}


def load_base(
    path: Path, dtype: torch.dtype = torch.float32, attn_implementation: str | None = "eager"
) -> PreTrainedModel:
    """The base at ``path``, a Hugging Face directory or a GGUF file, on CPU; by default as the reference needs it.

    Raises ConverterError where it can't be had.
    """
    refuse_others(path)
    arguments = _gguf_arguments(path) if path.is_file() else _directory_arguments(path)
    arguments |= {"dtype": dtype, "attn_implementation": attn_implementation}
    return _loaded(path, AutoModelForCausalLM, arguments)


def _loaded(path: Path, cls: Any, arguments: Mapping[str, Any]) -> PreTrainedModel:
    model, report = _from_pretrained(path, cls, arguments)
    _refuse_gaps(path, report)
    # A GGUF's weights are plain by now; a model that remembers more is taken for a quantised one by PEFT and Trainer.
    if hasattr(model.config, "quantization_config"):
        model.hf_quantizer.remove_quantization_config(model)  # type: ignore[operator, union-attr]  # transformers' own
    return model


def load_config(path: Path) -> PretrainedConfig:
    """The config of the base at ``path``. Raises ConverterError where it can't be had."""
    refuse_others(path)
    config: PretrainedConfig
    if path.is_file():
        config = _gguf_arguments(path)["config"]
        return config
    with quiet():
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ConverterError(f"{path}: transformers can't read config.json: {cause(error)}") from error
    config._attn_implementation = None  # noqa: SLF001  a name from the file can be a kernel's on the hub: code
    return config


def shell(config: PretrainedConfig) -> PreTrainedModel:
    """A model of the config without numbers, whole where it is a multimodal one. Raises ConverterError."""
    classes: tuple[Any, ...] = (AutoModelForCausalLM, AutoModelForImageTextToText)
    known = [cls for cls in classes if type(config) in cls._model_mapping.keys()]  # noqa: SIM118  no dict
    if not known and not hasattr(config, "auto_map"):
        raise ConverterError(f"transformers has no language model of the type {config.model_type!r}")
    # AutoModelForCausalLM has the text model alone for some configs of the whole.
    whole = [cls for cls in known if _model_class(cls, config).config_class is type(config)]
    from_config: Any = (whole or known or classes)[0].from_config
    with torch.device("meta"):
        model: PreTrainedModel = from_config(config, trust_remote_code=False)
    return model


def _model_class(cls: Any, config: PretrainedConfig) -> Any:
    return cls._model_mapping[type(config)]


def from_weights(path: Path, config: PretrainedConfig, weights: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """The base at ``path`` made of its config and the weights of its files, as the reference needs it.

    Raises ConverterError where they don't fit together.
    """
    with quiet():
        cls = type(shell(config))
    arguments = {"pretrained_model_name_or_path": None, "config": config, "state_dict": dict(weights)}
    return _loaded(path, cls, {**arguments, "dtype": torch.float32, "attn_implementation": "eager"})


def _from_pretrained(path: Path, cls: Any, arguments: Mapping[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    # Experts by plain products: the grouped one of torch knows no float64, in which layers are compared.
    settings: dict[str, Any] = {"experts_implementation": "eager"}
    # The bar of transformers' GGUF reader has no switch. Proofs, which may run beside other threads, go without it.
    bar = redirect_stderr(io.StringIO()) if "gguf_file" in arguments else nullcontext()
    with quiet(), bar:
        try:
            loaded: Any = cls.from_pretrained(
                **arguments,
                **settings,
                adapter_kwargs=_NO_ADAPTER,
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ConverterError(f"{path}: transformers can't load this base: {cause(error)}") from error
    model, report = loaded
    return model, report


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and anybody's warnings; one thread at a time."""
    with _BUILDING, without_warnings():
        bars: Any = transformers_logging  # without types
        had_bars = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()
        try:
            yield
        finally:
            if had_bars:
                bars.enable_progress_bar()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without the warnings of transformers, PEFT and trl: what they warn of is judged here by name."""
    loggers = [logging.getLogger(name) for name in ("transformers", "trl")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _directory_arguments(path: Path) -> dict[str, Any]:
    return {"pretrained_model_name_or_path": path, "config": load_config(path)}


def _gguf_arguments(path: Path) -> dict[str, Any]:
    with quiet():
        try:
            config = AutoConfig.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ConverterError(f"{path}: transformers can't read this GGUF ({cause(error)}); {_DIRECTORY}") from error
    _complete(config, path)
    return {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name, "config": config}


def _complete(config: PretrainedConfig, path: Path) -> None:
    kv: Mapping[str, Any] = read_gguf_header(path).kv
    for key, fields in _FROM_METADATA.items():
        value: Scalar | None = kv.get(f"{kv.get('general.architecture')}.{key}")
        for field in fields:
            if value is not None and hasattr(config, field):
                setattr(config, field, value)
    if config.num_hidden_layers == _GEMMA_27B_LAYERS.get(config.model_type):
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads


_DIRECTORY: Final = "give the Hugging Face directory of the same model with --base, and this file with --base-gguf"


def _refuse_gaps(path: Path, report: Mapping[str, Any]) -> None:
    # A weight that the checkpoint lacks is filled at random, which no comparison should stand on.
    gaps = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if gaps:
        # A Mixtral's GGUF says `llama`, and transformers takes it for one.
        advice = f"; {_DIRECTORY}" if path.is_file() else ""
        raise ConverterError(f"{path}: the base lacks weights of its own architecture: {', '.join(gaps[:5])}{advice}")


def cause(error: Exception) -> str:
    """The beginning of transformers' message; where it wants to run the base's own Python, that this is not done."""
    if "trust_remote_code" in str(error):
        return "it needs Python that comes with the base (auto_map), which is never run here"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# --- Head and embedding -----------------------------------------------------------------------------------------------


def head_of(model: Any) -> Any:
    """The module of the head. Raises ConverterError where there is none."""
    head = model.get_output_embeddings()
    if head is None:
        raise ConverterError(f"{type(model).__name__}: has no head that transformers knows")
    return head


def is_tied(model: Any) -> bool:
    """Whether head and embedding are one Parameter, or one storage, under two names."""
    ours, theirs = model.get_input_embeddings().weight, head_of(model).weight
    # By the storage and not by its address: what has no memory (meta, weights that stay in their file) has none.
    storage: Any = StorageWeakRef  # without types
    return bool(storage(ours.untyped_storage()) == storage(theirs.untyped_storage()))


def untie(model: Any) -> None:
    """Give the head a Parameter of its own, equal to the embedding's. Raises ConverterError where they stay one.

    Assigning to .data would leave one Parameter under two names, and so untie nothing.
    """
    model.config.tie_word_embeddings = False
    if not is_tied(model):
        return
    embedding, head = model.get_input_embeddings(), head_of(model)
    head.weight = nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
    model.tie_weights()  # whoever prepares the model later may do the same: it must leave the two apart
    if is_tied(model):
        raise ConverterError(f"{type(model).__name__}: the head could not be parted from the embedding")
