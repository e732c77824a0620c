"""Spoilt adapter_config.json files."""

from pathlib import Path

from tests.rules.bad.registry import bad
from tests.rules.specimens import HIDDEN, RANK, UP, Specimen, tensor, write_gguf


@bad("CF001")
def no_config(it: Specimen, _: Path) -> None:
    it.write()
    it.config_path.unlink()


@bad("CF002")
def a_config_that_is_not_json(it: Specimen, _: Path) -> None:
    it.write()
    it.config_path.write_text("r: 8", encoding="utf-8")


@bad("CF002")
def a_config_that_is_a_list(it: Specimen, _: Path) -> None:
    it.write()
    it.config_path.write_text("[]", encoding="utf-8")


@bad("CF002")
def a_sites_answer(it: Specimen, _: Path) -> None:
    it.config = {"error": "Repository not found"}
    it.write()


@bad("CF002")
def a_models_config(it: Specimen, _: Path) -> None:
    it.config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    it.write()


@bad("CF003")
def no_alpha_at_all(it: Specimen, _: Path) -> None:
    it.config["lora_alpha"] = None
    it.write()


@bad("CF003")
def an_alpha_in_quotes(it: Specimen, _: Path) -> None:
    it.config["lora_alpha"] = "32"
    it.write()


@bad("CF003")
def an_alpha_that_is_not_finite(it: Specimen, _: Path) -> None:
    it.config["lora_alpha"] = float("nan")
    it.write()


@bad("CF003")
def an_alpha_beyond_a_float(it: Specimen, _: Path) -> None:
    it.config["lora_alpha"] = 10**400
    it.write()


@bad("CF003")
def a_pattern_of_words(it: Specimen, _: Path) -> None:
    it.config["alpha_pattern"] = {"q_proj": "high"}
    it.write()


@bad("CF004")
def a_field_of_the_future(it: Specimen, _: Path) -> None:
    it.config["use_better_lora"] = True
    it.write()


@bad("CF004")
def an_unknown_zero(it: Specimen, _: Path) -> None:
    it.config["delta_scale"] = 0
    it.write()


@bad("CF005")
def another_tuner(it: Specimen, _: Path) -> None:
    it.config = {"peft_type": "LOHA"}
    it.tensors = {f"{UP}.hada_w1_a": tensor(HIDDEN, RANK)}
    it.write()


@bad("CF005")
def a_prompt(it: Specimen, _: Path) -> None:
    it.config = {"peft_type": "PROMPT_TUNING"}
    it.tensors = {"prompt_embeddings": tensor(4, HIDDEN)}
    it.write()


@bad("CF006")
def a_quantised_beginning(it: Specimen, _: Path) -> None:
    it.config["init_lora_weights"] = "loftq"
    it.write()


@bad("CF016")
def a_base_that_loftq_quantised(it: Specimen, _: Path) -> None:
    it.config["loftq_config"] = {"loftq_bits": 4, "loftq_iter": 5}
    it.write()


@bad("CF017")
def a_layer_that_mlx_does_not_train(it: Specimen, _: Path) -> None:
    it.config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": {"rank": RANK, "scale": 2.0}}
    it.tensors = {
        f"model.layers.0.mlp.down_proj.lora_{part}": tensor(*shape)
        for part, shape in (("a", (96, RANK)), ("b", (RANK, HIDDEN)))
    }
    it.write()


@bad("CF006", "CF005")
def weights_drawn_for_every_input(it: Specimen, _: Path) -> None:
    it.config = {"peft_type": "PVERA", "sample_at_inference": True}
    it.tensors = {f"{UP}.pvera_lambda_b": tensor(HIDDEN)}
    it.write()


@bad("CF012")
def a_random_beginning(it: Specimen, _: Path) -> None:
    it.config["init_lora_weights"] = "pissa_niter_4"
    it.write()


@bad("CF012")
def a_beginning_that_a_quantised_base_has_lost(it: Specimen, bases: Path) -> None:
    it.config["init_lora_weights"] = "pissa"
    it.base = write_gguf(bases / "quantised.gguf", outtype="Q8_0")
    it.write()


@bad("CF013")
def a_beginning_without_a_base(it: Specimen, _: Path) -> None:
    it.config["init_lora_weights"] = "pissa"
    it.base = None
    it.write()


@bad("CF014")
def the_trained_adapter_as_its_own_beginning(it: Specimen, _: Path) -> None:
    it.config["init_lora_weights"] = "corda"
    it.initial = it.directory
    it.write()


@bad("CF014")
def a_beginning_of_another_rank(it: Specimen, bases: Path) -> None:
    other = Specimen(bases / "another-rank", None)
    other.config["lora_alpha"] = 1
    other.write()
    it.config["init_lora_weights"] = "corda"
    it.initial = other.directory
    it.write()


@bad("CF014")
def a_beginning_of_a_plain_lora(it: Specimen, _: Path) -> None:
    it.initial = it.directory
    it.write()


@bad("CF007")
def an_alpha_pattern_that_hangs(it: Specimen, _: Path) -> None:
    it.config["alpha_pattern"] = {"([a-z_.0-9]+)+!": 8}
    it.write()


@bad("CF007")
def a_rank_pattern_that_does_not_compile(it: Specimen, _: Path) -> None:
    it.config["rank_pattern"] = {"(q_proj": 8}
    it.write()


@bad("CF007")
def target_modules_that_do_not_compile(it: Specimen, _: Path) -> None:
    it.config["target_modules"] = ".*[q_proj"
    it.write()


@bad("CF007")
def a_target_pattern_that_hangs(it: Specimen, _: Path) -> None:
    it.config["target_modules"] = "([a-z_.0-9]+)(?#x)+!"
    it.write()


@bad("CF007")
def excluded_by_a_pattern_that_hangs(it: Specimen, _: Path) -> None:
    it.config["exclude_modules"] = "(?x:([a-z_.0-9]+) +!)"
    it.write()


@bad("CF007", "CF009")
def saved_by_a_pattern_that_hangs(it: Specimen, _: Path) -> None:
    it.base = None
    it.config["modules_to_save"] = ["([a-z_.0-9]+)(?#x)+!"]
    it.write()


@bad("CF007")
def a_layers_pattern_that_is_more_than_a_name(it: Specimen, _: Path) -> None:
    it.config |= {"layers_to_transform": [0, 1], "layers_pattern": ["(l+ayers)+"]}
    it.write()


@bad("CF015")
def a_module_that_is_not_targeted(it: Specimen, _: Path) -> None:
    it.config["target_modules"] = ["q_proj", "down_proj"]
    it.write()


@bad("CF015", "CF005")
def another_methods_module_that_is_not_targeted(it: Specimen, _: Path) -> None:
    it.config = {"peft_type": "LOHA", "target_modules": ["q_proj"]}
    it.base = None
    it.tensors = {f"{UP}.hada_{name}": tensor(4, 4) for name in ("w1_a", "w1_b", "w2_a", "w2_b")}
    it.write()


@bad("CF015")
def targets_as_one_string(it: Specimen, _: Path) -> None:
    it.config["target_modules"] = "down_proj,q_proj,v_proj"
    it.write()


@bad("CF015")
def layers_that_are_not_transformed(it: Specimen, _: Path) -> None:
    it.config["layers_to_transform"] = [0]
    it.write()


@bad("CF015")
def an_excluded_module(it: Specimen, _: Path) -> None:
    it.config["exclude_modules"] = ["v_proj"]
    it.write()


@bad("CF008")
def a_field_twice(it: Specimen, _: Path) -> None:
    it.write()
    text = it.config_path.read_text(encoding="utf-8")
    it.config_path.write_text(text.replace("{", '{"lora_alpha": 16, ', 1), encoding="utf-8")


@bad("CF009")
def a_saved_module_left_out(it: Specimen, _: Path) -> None:
    it.config["modules_to_save"] = ["lm_head"]
    it.write()
