"""What tables say of a config's class is what transformers' class says."""

import pytest
from transformers import AutoConfig

from converter.architectures import MODEL_TYPES, architecture_of_model_type


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_defaults_are_those_of_the_config_class(model_type: str) -> None:
    whole = AutoConfig.for_model(model_type)
    config = type(whole.get_text_config())()
    architecture = architecture_of_model_type(model_type, config.model_type)
    assert architecture
    stated = {**config.to_dict(), **_rope(config.to_dict().get("rope_parameters") or {})}
    for field, value in architecture.config.defaults.items():
        if field != "rope_parameters":
            assert stated.get(field, getattr(config, field, None)) == value, field
    for field, values in architecture.config.fixed.items():  # what no default is stated for
        said = getattr(config, field, None)
        assert field in architecture.config.defaults or said is None or said in values, field
    assert architecture.config.tied_by_default == whole.tie_word_embeddings
    if isinstance(parameters := architecture.config.defaults.get("rope_parameters"), dict):
        assert {**stated["rope_parameters"], **parameters} == stated["rope_parameters"]
    else:
        kinds = {fields["rope_type"] for fields in _every(stated.get("rope_parameters") or {})}
        assert kinds <= {"default"}


def _every(parameters: dict[str, object]) -> list[dict[str, object]]:
    nested = [fields for fields in parameters.values() if isinstance(fields, dict)]
    return nested or ([parameters] if parameters else [])


def _rope(parameters: dict[str, object]) -> dict[str, object]:
    """The fields of transformers 4, which published configs still have."""
    of_kinds = [parameters.get("full_attention"), parameters.get("sliding_attention")]
    everywhere = of_kinds[0] if isinstance(of_kinds[0], dict) else parameters
    local = of_kinds[1] if isinstance(of_kinds[1], dict) else {}
    found = {name: everywhere[name] for name in ("rope_theta", "partial_rotary_factor") if name in everywhere}
    return {**found, **({"rope_local_base_freq": local["rope_theta"]} if local else {})}
