"""An adapter of whole weights that is equal to one of another PEFT method: what the ordinary plan can convert."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from safetensors.torch import save_file

from converter.derive.adapter import Adapter, Origin, read_adapter
from converter.derive.base_model import BaseModel
from converter.errors import ConverterError
from converter.read.checkpoint import CONFIG_NAME, INDEX_NAME
from converter.through_peft.attached import tuner_layers
from converter.through_peft.merged import Parameters, merged

_PREFIX: Final = "base_model.model."


def equivalent_adapter(adapter: Adapter, base: BaseModel, directory: Path) -> Adapter:
    """The equivalent of a judged adapter, whose weights, 8 bytes each, are written into ``directory``.

    Raises RuleBroken where PEFT can't load the adapter, or can't merge it into what it computes.
    """
    _write(adapter, base, directory)
    whole = read_adapter(directory)
    tensors = (*whole.tensors, *adapter.saved_modules)
    return replace(whole, path=adapter.path, tensors=tensors, origin=_origin(adapter, whole))


def _write(adapter: Adapter, base: BaseModel, directory: Path) -> None:
    """A file for each module, so that never more than one is in memory twice."""
    weight_map: dict[str, str] = {}
    modules: list[str] = []
    for module, layer in tuner_layers(adapter, base):
        modules.append(module)
        name = f"adapter_model-{len(modules):05}.safetensors"
        weight_map |= dict.fromkeys(_write_module(directory / name, module, merged(module, layer)), name)
    _write_json(directory / INDEX_NAME, {"weight_map": weight_map})
    _write_json(directory / CONFIG_NAME, _config(adapter, modules))


def _write_module(path: Path, module: str, parameters: Parameters) -> Iterator[str]:
    tensors = {f"{_PREFIX}{module}.{name}": values for name, values in parameters.items()}
    try:
        save_file(tensors, path)
    except (OSError, RuntimeError) as error:  # safetensors wraps a full disk in its own error
        raise ConverterError(f"{path.parent.parent}: a merged layer can't be written: {error}") from error
    return iter(tensors)


def _config(adapter: Adapter, modules: list[str]) -> Mapping[str, object]:
    config = adapter.config
    saved = [*modules, *(config.modules_to_save if config else ())]
    return {
        "peft_type": "LORA",
        "modules_to_save": saved,
        "base_model_name_or_path": config.base_model_name_or_path if config else None,
    }


def _write_json(path: Path, data: Mapping[str, object]) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")


def _origin(adapter: Adapter, whole: Adapter) -> Origin:
    """Which keys of the adapter went into which key of its equivalent: a module's own, and those that all share."""
    shared = tuple(tensor.key for tensor in adapter.tensors if tensor.role == "shared")
    keys: dict[str, tuple[str, ...]] = {tensor.key: (tensor.key,) for tensor in adapter.saved_modules}
    for tensor in whole.tensors:
        own = (other.key for other in adapter.tensors if other.module == tensor.module and _is_merged(other.role))
        keys[tensor.key] = (*own, *shared)
    return Origin(adapter, keys)


def _is_merged(role: str) -> bool:
    return role == "tuner" or role.startswith("base_layer.")
