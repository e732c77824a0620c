"""Adapters that hold all that their config promises, though some module of the base has no tensor."""

from time import process_time

import pytest

from tests.rules.bad.incomplete import give_layers, without
from tests.rules.specimens import PREFIX, Specimen, codes, lora, tensor
from tests.rules.test_no_false_alarms import UNSLOTH_TARGETS

# What the config says, and what the file doesn't have.
COMPLETE: list[tuple[dict[str, object], str]] = [
    ({"layers_to_transform": [1]}, "layers.0."),
    ({"layers_to_transform": 1, "layers_pattern": "layers"}, "layers.0."),
    ({"layers_to_transform": [1], "layers_pattern": ["blocks", "layers"]}, "layers.0."),
    ({"exclude_modules": ["layers.0.self_attn.v_proj"]}, "layers.0.self_attn.v_proj"),
    ({"exclude_modules": r".*layers\.0.*"}, "layers.0."),
    ({"target_modules": ["model.layers.1.mlp.down_proj", "q_proj", "v_proj"]}, "layers.0.mlp"),
    ({"target_modules": r".*layers\.1\..*"}, "layers.0."),
    ({"target_modules": ["down_proj", "fc1", "q_proj", "qkv", "v_proj", "w1"]}, "nothing"),
    ({"target_modules": UNSLOTH_TARGETS}, "mlp"),  # it names no down_proj
    ({"modules_to_save": ["v_proj"]}, "v_proj.lora"),
    ({"target_modules": None, "target_parameters": ["mlp.experts.gate_up_proj"]}, "q_proj"),
]


@pytest.mark.parametrize(("fields", "left_out"), COMPLETE)
def test_nothing_is_missing(fields: dict[str, object], left_out: str, specimen: Specimen) -> None:
    specimen.config |= fields
    without(specimen, left_out)
    if fields.get("modules_to_save"):
        specimen.tensors |= {f"{PREFIX}.model.layers.{i}.self_attn.v_proj.weight": tensor(32, 32) for i in (0, 1)}
    specimen.write()
    assert {"LO021", "LO022"}.isdisjoint(codes(specimen.report()))


def test_a_layer_of_unsloths_pattern_is_missed(specimen: Specimen) -> None:
    specimen.config["target_modules"] = UNSLOTH_TARGETS
    without(specimen, "mlp")
    without(specimen, "layers.0.")
    specimen.write()
    assert codes(specimen.report()) == ["LO021"]


@pytest.mark.parametrize("part", ["layers.0.self_attn.v_proj", "v_proj", "layers.1."])
@pytest.mark.parametrize("targets", [UNSLOTH_TARGETS, "all-linear", "All-Linear"])
def test_what_a_usual_word_or_pattern_names_is_missed(targets: str, part: str, specimen: Specimen) -> None:
    specimen.config["target_modules"] = targets
    without(specimen, "mlp." if targets == UNSLOTH_TARGETS else "nothing")
    without(specimen, part)
    specimen.write()
    assert codes(specimen.report()) == ["LO021"]


def test_a_pattern_that_is_not_read_can_not_be_compared(specimen: Specimen) -> None:
    specimen.config["target_modules"] = r"(.*)\1"
    specimen.write()
    report = specimen.report()
    assert codes(report) == ["CF007"]
    assert {"LO021", "CF015"} <= {skip.code for skip in report.skipped}


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        ({}, (0, 1, 2, 3)),
        ({}, (2, 3)),
        ({}, (3, 7, 11)),  # attention in every fourth layer
        ({"layers_to_transform": [0, 1, 3]}, (0, 1, 3)),
        ({"target_modules": r".*layers\.[013]\..*"}, (0, 1, 3)),
    ],
)
def test_no_gap(fields: dict[str, object], layers: tuple[int, ...], specimen: Specimen) -> None:
    specimen.config |= fields
    give_layers(specimen, *layers)
    specimen.write()
    assert codes(specimen.report()) == []


def test_layers_of_another_make_are_not_uneven(specimen: Specimen) -> None:
    """A hybrid has attention in some layers, and something else in its place in others."""
    give_layers(specimen, 0, 1, 2, 3)
    specimen.tensors = {
        key.replace("self_attn.q_proj", "linear_attn.in_proj") if ".0." in key or ".2." in key else key: value
        for key, value in specimen.tensors.items()
    }
    for layer in (0, 2):
        without(specimen, f"layers.{layer}.self_attn")
    specimen.write()
    assert codes(specimen.report()) == []


def test_what_most_layers_lack_is_how_the_model_is_built(specimen: Specimen) -> None:
    give_layers(specimen, 0, 1, 2, 3)
    for layer in (1, 2, 3):
        without(specimen, f"layers.{layer}.self_attn")
    specimen.write()
    assert codes(specimen.report()) == []


@pytest.mark.parametrize("module", ["model.layers.0.mlp.image_gate", "model.layers.0.visual_gate"])
def test_a_module_of_the_text_model_is_no_tower(module: str, specimen: Specimen) -> None:
    specimen.base = None
    specimen.tensors |= lora(f"{PREFIX}.{module}", 8, 8)
    specimen.write()
    assert "LO020" not in codes(specimen.report())


def test_layers_of_which_no_two_are_alike_take_no_time(specimen: Specimen) -> None:
    specimen.base = None
    specimen.config["target_modules"] = "all-linear"
    for i in range(3000):
        specimen.tensors |= lora(f"{PREFIX}.model.layers.{i}.mlp.part_{i}", 2, 2)
    specimen.write()
    began = process_time()
    assert "LO023" in {skip.code for skip in specimen.report().skipped}
    assert process_time() - began < 5
