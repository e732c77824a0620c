"""Adapters that lack a part of what was trained, or have a part that no GGUF of the text model holds."""

from pathlib import Path

from tests.rules.bad.registry import bad
from tests.rules.specimens import PREFIX, SHAPES, Specimen, lora, tensor


def without(it: Specimen, part: str) -> None:
    it.tensors = {key: value for key, value in it.tensors.items() if part not in key}


def give_layers(it: Specimen, *layers: int) -> None:
    """Give the adapter exactly these layers, and no base."""
    it.base = None
    modules = {f"{PREFIX}.model.layers.{i}.{name}": shape for i in layers for name, shape in SHAPES.items()}
    it.tensors = {key: value for module, shape in modules.items() for key, value in lora(module, *shape).items()}


@bad("LO020")
def a_vision_tower(it: Specimen, _: Path) -> None:
    it.tensors |= lora(f"{PREFIX}.model.vision_tower.encoder.layers.0.self_attn.q_proj", 8, 8)
    it.write()


@bad("LO020")
def the_projector_of_qwen2_vl(it: Specimen, _: Path) -> None:
    it.tensors |= lora(f"{PREFIX}.visual.merger.mlp.0", 8, 8)
    it.write()


@bad("LO020", "LO007")  # no LoRA file holds a whole tensor
def a_saved_projector(it: Specimen, _: Path) -> None:
    it.base = None
    it.config["modules_to_save"] = ["multi_modal_projector"]
    it.tensors[f"{PREFIX}.model.multi_modal_projector.linear_1.weight"] = tensor(8, 8)
    it.write()


@bad("LO021")
def a_layer_left_out(it: Specimen, _: Path) -> None:
    without(it, "layers.0.")
    it.write()


@bad("LO021")
def a_module_left_out(it: Specimen, _: Path) -> None:
    without(it, "layers.1.self_attn.v_proj")
    it.write()


@bad("LO021")
def a_kind_left_out(it: Specimen, _: Path) -> None:
    without(it, "v_proj")
    it.write()


@bad("LO021")
def the_head_left_out(it: Specimen, bases: Path) -> None:
    it.base = bases / "untied.gguf"
    it.config["target_modules"] = ["down_proj", "lm_head", "q_proj", "v_proj"]
    it.write()


@bad("LO021")
def a_module_of_the_layer_that_was_transformed(it: Specimen, _: Path) -> None:
    it.config["layers_to_transform"] = [1]
    without(it, "layers.0.")
    without(it, "v_proj")
    it.write()


@bad("LO021")
def a_module_named_whole_beside_the_layer_that_was_transformed(it: Specimen, _: Path) -> None:
    it.config |= {"layers_to_transform": [1], "target_modules": ["model.layers.0.mlp.down_proj", "q_proj", "v_proj"]}
    without(it, "layers.0.")
    without(it, "mlp")
    it.write()


@bad("LO021")
def a_layer_that_a_regex_names(it: Specimen, _: Path) -> None:
    it.config["target_modules"] = r"model\.layers\.[01]\.(self_attn\.[qv]|mlp\.down)_proj"
    without(it, "layers.0.")
    it.write()


@bad("LO021")
def a_layer_of_a_wrapped_model(it: Specimen, _: Path) -> None:
    it.config["target_modules"] = r".*language_model\.layers.*_proj"
    it.tensors = {
        key.replace(f"{PREFIX}.model.", f"{PREFIX}.model.language_model."): value for key, value in it.tensors.items()
    }
    without(it, "layers.0.")
    it.write()


@bad("LO022")
def a_gap_between_layers(it: Specimen, _: Path) -> None:
    give_layers(it, 0, 1, 3, 4)
    it.write()


@bad("LO022")
def the_first_layer_missing(it: Specimen, _: Path) -> None:
    give_layers(it, 1, 2, 3)
    it.write()


@bad("LO023")
def a_module_missing_in_half_of_the_layers(it: Specimen, _: Path) -> None:
    give_layers(it, 0, 1, 2, 3)
    without(it, "layers.2.self_attn.v_proj")
    without(it, "layers.3.self_attn.v_proj")
    it.write()


@bad("LO023")
def a_module_missing_in_one_layer(it: Specimen, _: Path) -> None:
    it.base = None
    without(it, "layers.1.mlp.down_proj")
    it.write()


@bad("LO023")
def a_module_of_a_pattern_missing_in_one_layer(it: Specimen, _: Path) -> None:
    it.config["target_modules"] = (
        r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:[qv]_proj|down_proj).*?)|(?:model\.layers\.\d+\.(?:self_attn|mlp)\.(?:[qv]_proj|down_proj))"
    )
    give_layers(it, 0, 1, 2)
    without(it, "layers.0.self_attn.q_proj")
    it.write()


@bad("LO023")
def a_module_that_is_named_and_nowhere(it: Specimen, _: Path) -> None:
    it.base = None
    it.config["target_modules"] = ["down_proj", "o_proj", "q_proj", "v_proj"]
    it.write()
