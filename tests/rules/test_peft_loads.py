"""Which deltas of a file PEFT loads, by PEFT itself, and that CF015 says the same of every variation."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from peft.utils.error import NoMatchingPeftModuleError

from converter.checking import check_adapter
from converter.derive.adapter import read_adapter
from converter.diagnostics import Deployment, Report
from fixtures.adapters import RECIPES, load_base, tiny_adapter
from fixtures.tiny import TinyModel
from fixtures.variation import BASES, Variation, names_of, save_variation
from fixtures.variations import GROUPS
from tests.rules.test_no_false_alarms import UNSLOTH_TARGETS

CODE = "CF015"
LOADED = ("LoRA", "Mixtures of experts", "Head and embedding", "What comes beside a LoRA", "Other PEFT types")
OF_ONE_BASE = [
    (variation, name)
    for group in LOADED
    for variation in GROUPS[group]
    for name in ("llama", "llama untied", "gpt2", "qwen3moe")
    if not variation.lacking(names_of(BASES[name])) and (name == "llama" or group != "Other PEFT types")
]


def judged(directory: Path) -> Report:
    return check_adapter(read_adapter(directory), None, Deployment())


@pytest.mark.parametrize(("variation", "base"), OF_ONE_BASE, ids=lambda it: getattr(it, "name", it))
def test_peft_loads_all_of_what_it_saves(variation: Variation, base: str, tmp_path: Path) -> None:
    save_variation(variation, BASES[base], tmp_path / "adapter")
    report = judged(tmp_path / "adapter")
    assert CODE not in {finding.code for finding in report.findings}
    assert CODE not in {skip.code for skip in report.skipped}


CONTRADICTIONS: Mapping[str, dict[str, object]] = {
    "left out": {"target_modules": ["q_proj"]},
    "a list with a path": {"target_modules": ["model.layers.1.self_attn.q_proj", "up_proj"]},
    "a path past the layers": {
        "target_modules": ["model.layers.1.self_attn.q_proj", "up_proj"],
        "layers_to_transform": [0],
    },
    "layers": {"layers_to_transform": [0]},
    "a layer and its pattern": {"layers_to_transform": 1, "layers_pattern": "layers"},
    "layers behind another name": {"layers_to_transform": [0], "layers_pattern": ["blocks", "h"]},
    "excluded": {"exclude_modules": ["v_proj", "layers.0.mlp.up_proj"]},
    "excluded by a pattern": {"exclude_modules": r".*layers\.1\..*"},
    "one string": {"target_modules": "q_proj,v_proj"},
    "a pattern": {"target_modules": r".*\.(q|k)_proj"},
    "Unsloth's pattern": {"target_modules": UNSLOTH_TARGETS},
    "all-linear": {"target_modules": "all-linear"},
    "saved whole": {"modules_to_save": ["mlp"]},
}


@pytest.mark.parametrize("recipe", ["plain", "embed_and_head", "tied_pair"])
@pytest.mark.parametrize("fields", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_what_peft_leaves_out_is_named(fields: dict[str, object], recipe: str, tmp_path: Path) -> None:
    assert recipe in RECIPES
    base = TinyModel("llama")
    directory = copied(tiny_adapter(recipe, base), tmp_path / "adapter", fields)
    named = {finding.where for finding in judged(directory).findings if finding.code == CODE}
    loaded = loaded_modules(base, directory)
    saved = {pair.module for pair in read_adapter(directory).pairs}
    assert named == {_kind(module) for module in saved - loaded}


def copied(source: Path, target: Path, fields: dict[str, object]) -> Path:
    target.mkdir()
    weights = "adapter_model.safetensors"
    (target / weights).write_bytes((source / weights).read_bytes())
    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    (target / "adapter_config.json").write_text(json.dumps({**config, **fields}), encoding="utf-8")
    return target


def loaded_modules(base: TinyModel, directory: Path) -> set[str]:
    """The modules to which PEFT gives factors, by the adapter's config."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights, and of names that match nothing
        try:
            model = get_peft_model(load_base(base.hf), LoraConfig.from_pretrained(str(directory)))
        except NoMatchingPeftModuleError:
            return set()
    return {
        name.removeprefix("base_model.model.").partition(".lora_")[0]
        for name, _ in model.named_parameters()
        if ".lora_" in name
    }


def _kind(module: str) -> str:
    parts = module.split(".")
    return ".".join("{i}" if part.isdigit() else part for part in parts)


def test_without_a_contradiction_all_of_the_file_is_loaded() -> None:
    base = TinyModel("llama")
    directory = tiny_adapter("plain", base)
    assert loaded_modules(base, directory) == set(read_adapter(directory).modules)
