"""Spoilt factors: their keys, shapes and numbers."""

from pathlib import Path

from tests.rules.bad.registry import bad
from tests.rules.specimens import EMBEDDING, FFN, HIDDEN, PREFIX, RANK, UP, VOCAB, Specimen, lora, tensor, zeros


@bad("LO001")
def no_lora_b(it: Specimen, _: Path) -> None:
    del it.tensors[f"{UP}.lora_B.weight"]
    it.write()


@bad("LO001")
def half_an_embedding(it: Specimen, _: Path) -> None:
    it.tensors[f"{EMBEDDING}.lora_embedding_B"] = tensor(HIDDEN, RANK)
    it.write()


@bad("LO002")
def a_flat_factor(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.lora_B.weight"] = tensor(HIDDEN * RANK)
    it.write()


@bad("LO002")
def a_factor_without_dimensions(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.lora_A.weight"] = ("F32", (), bytes(4))
    it.write()


@bad("LO002")
def ranks_that_disagree(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.lora_B.weight"] = tensor(HIDDEN, RANK + 1)
    it.write()


@bad("LO003")
def a_factor_under_two_names(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.lora_B.default.weight"] = tensor(HIDDEN, RANK, seed=5)
    it.write()


@bad("LO004")
def keys_of_kohya(it: Specimen, _: Path) -> None:
    it.tensors["lora_unet_down_blocks_0.lora_down.weight"] = tensor(4, 4)
    it.write()


@bad("LO004")
def a_key_beyond_measure(it: Specimen, _: Path) -> None:
    it.tensors[f"{'a.' * 500}lora_A.weight"] = tensor(4, 4)
    it.write()


@bad("LO005")
def another_rank_than_the_config(it: Specimen, _: Path) -> None:
    it.config["r"] = 2 * RANK
    it.write()


@bad("LO005")
def another_rank_than_its_pattern(it: Specimen, _: Path) -> None:
    it.config["rank_pattern"] = {"mlp.down_proj": 2}
    it.write()


@bad("LO006")
def unannounced_magnitudes(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.lora_magnitude_vector"] = tensor(HIDDEN)
    it.write()


@bad("LO007")
def a_saved_norm(it: Specimen, _: Path) -> None:
    it.config["modules_to_save"] = ["norm"]
    it.tensors[f"{PREFIX}.model.norm.weight"] = tensor(HIDDEN)
    it.write()


@bad("LO007")
def a_saved_bias(it: Specimen, _: Path) -> None:
    it.config["bias"] = "all"
    it.tensors[f"{UP}.bias"] = tensor(HIDDEN)
    it.write()


@bad("LO008")
def factors_of_whole_numbers(it: Specimen, _: Path) -> None:
    shape = it.tensors[f"{UP}.lora_B.weight"][1]
    it.tensors[f"{UP}.lora_B.weight"] = ("I8", shape, bytes(HIDDEN * RANK))
    it.write()


@bad("LO009", "LO007")  # what is saved whole is not converted either
def a_lora_on_what_is_saved(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.weight"] = tensor(HIDDEN, FFN)
    it.write()


@bad("LO010")
def linear_factors_of_the_embedding(it: Specimen, bases: Path) -> None:
    it.base = bases / "untied.gguf"
    it.tensors |= lora(EMBEDDING, VOCAB, HIDDEN)
    it.write()


@bad("NM001")
def a_nan(it: Specimen, _: Path) -> None:
    dtype, shape, data = it.tensors[f"{UP}.lora_B.weight"]
    it.tensors[f"{UP}.lora_B.weight"] = (dtype, shape, data[:-4] + b"\x00\x00\xc0\x7f")
    it.write()


@bad("NM001")
def an_infinity_in_f16(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.lora_A.weight"] = ("F16", (RANK, FFN), b"\x00\x7c" + tensor(RANK, FFN, dtype="F16")[2][2:])
    it.write()


@bad("NM002")
def never_trained(it: Specimen, _: Path) -> None:
    it.tensors = {key: zeros(*value[1]) if "lora_B" in key else value for key, value in it.tensors.items()}
    it.write()


@bad("NM003")
def a_module_never_reached(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.lora_B.weight"] = zeros(HIDDEN, RANK)
    it.write()
