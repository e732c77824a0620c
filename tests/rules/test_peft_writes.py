"""Adapters as PEFT itself saves them, on tiny models: those that are right are clean, scales are PEFT's own."""

import dataclasses
import warnings
from pathlib import Path

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from converter.checking import check_adapter
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.derive.peft_methods import PROMPTS, REBUILT, ROUTERS, peft_method
from converter.diagnostics import EVERY, Deployment, Kind
from fixtures.adapters import RECIPES, load_base, tiny_adapter
from fixtures.tiny import TinyModel
from tests.rules.specimens import open_for

UNTIED: set[Kind] = {"untie-lora", "untie-model"}
OPEN: dict[str, set[Kind]] = {  # on a tied GGUF base
    "plain": set(EVERY),
    "plain_bf16": set(EVERY),
    "plain_f16": set(EVERY),
    "rslora": set(EVERY),
    "patterns": set(EVERY),
    "lm_head": UNTIED,
    "lm_head_without_base_layer": UNTIED,
    "foreign_base_layer": {"untie-model"},
    "embed_tokens": UNTIED,
    "embed_and_head": UNTIED,
    "tied_pair": set(EVERY) - {"lora"},
    "saved_lm_head": {"untie-model"},
    "saved_embed_tokens": {"untie-model"},
}


def test_every_recipe_is_held() -> None:
    assert set(OPEN) == set(RECIPES)


@pytest.mark.parametrize("recipe", OPEN)
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_what_stays_open(recipe: str, name: str) -> None:
    base = TinyModel(name)
    report = check_adapter(
        read_adapter(tiny_adapter(recipe, base)), read_base_model(base.gguf), Deployment(), values=True
    )
    assert open_for(report) == OPEN[recipe]
    assert report.skipped == ()


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3", "qwen2", "qwen3"])
def test_a_plain_adapter_is_clean(name: str) -> None:
    base = TinyModel(name)
    report = check_adapter(
        read_adapter(tiny_adapter("plain", base)), read_base_model(base.gguf), Deployment(), values=True
    )
    assert report.findings == ()


def test_a_base_layer_within_q8_0s_rounding_is_the_bases_own() -> None:
    adapter = read_adapter(tiny_adapter("lm_head", TinyModel("llama")))
    base = read_base_model(TinyModel("llama", outtype="Q8_0").gguf)
    report = check_adapter(adapter, base, Deployment(), values=True)
    assert open_for(report) == UNTIED


@pytest.mark.parametrize("recipe", ["plain", "rslora", "patterns", "tied_pair", "embed_and_head"])
def test_scales_are_pefts_own(recipe: str) -> None:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    base = TinyModel("llama")
    directory: Path = tiny_adapter(recipe, base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's advice on tied weights
        model = PeftModel.from_pretrained(load_base(base.hf), str(directory))
    theirs = {
        name.removeprefix("base_model.model."): module.scaling["default"]
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert {pair.module: pair.scaling for pair in read_adapter(directory).pairs} == theirs


def test_every_method_of_peft_is_known() -> None:
    """With its config's fields and its layers' tensors, or as one that is not converted."""
    known = {"LORA"} | PROMPTS | ROUTERS | REBUILT
    for peft_type, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        method = peft_method(peft_type.value)
        if method is None:
            assert peft_type.value in known
            continue
        assert {field.name for field in dataclasses.fields(config)} == method.fields
        layer = PEFT_TYPE_TO_TUNER_MAPPING[peft_type].tuner_layer_cls
        assert set(layer.adapter_layer_names) <= set(method.tensors)
