"""What tables say of a config's class is what transformers' class says."""

from typing import Any

import pytest
from transformers import AutoConfig, PretrainedConfig

from converter.architectures import MODEL_TYPES, architecture_of_model_type


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_defaults_are_those_of_the_config_class(model_type: str) -> None:
    whole = AutoConfig.for_model(model_type)
    config = type(whole.get_text_config())()
    architecture = architecture_of_model_type(model_type, config.model_type)
    assert architecture
    stated = _stated(config)
    for field, value in architecture.config.defaults.items():
        assert field == "rope_parameters" or stated[field] == value, field
    for field, values in architecture.config.fixed.items():  # what no default is stated for
        said = stated.get(field)
        assert field in architecture.config.defaults or said is None or said in values, field
    assert architecture.config.tied_by_default == whole.to_dict().get("tie_word_embeddings", False)
    if isinstance(parameters := architecture.config.defaults.get("rope_parameters"), dict):
        assert {**stated["rope_parameters"], **parameters} == stated["rope_parameters"]
    else:
        kinds = {fields["rope_type"] for fields in _every(stated.get("rope_parameters") or {})}
        assert kinds <= {"default"}


def _stated(config: PretrainedConfig) -> dict[str, Any]:
    """Every field, also by the names of transformers 4, which published configs still have."""
    fields = {name: _of_all_layers(value) for name, value in config.to_dict().items()}
    aliases = {old: fields[new] for old, new in type(config).attribute_map.items() if new in fields}
    layers = fields.get("per_layer_config") or {}
    of_layers = {f"global_{name}": value for layer in layers.values() for name, value in layer.items()}
    return {**fields, **aliases, **of_layers, **_rope(fields.get("rope_parameters") or {})}


def _of_all_layers(value: Any) -> Any:
    """A size that is listed for each of many layers, as Gemma 3n's intermediate_size."""
    is_listed = isinstance(value, list) and len(value) > 10 and len({*map(str, value)}) == 1
    return value[0] if is_listed else value


def _every(parameters: dict[str, object]) -> list[dict[str, object]]:
    nested = [fields for fields in parameters.values() if isinstance(fields, dict)]
    return nested or ([parameters] if parameters else [])


def _rope(parameters: dict[str, object]) -> dict[str, object]:
    of_kinds = [parameters.get("full_attention"), parameters.get("sliding_attention")]
    everywhere = of_kinds[0] if isinstance(of_kinds[0], dict) else parameters
    local = of_kinds[1] if isinstance(of_kinds[1], dict) else {}
    found = {name: everywhere[name] for name in ("rope_theta", "partial_rotary_factor") if name in everywhere}
    return {**found, **({"rope_local_base_freq": local["rope_theta"]} if local else {})}
