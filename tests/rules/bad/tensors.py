"""Spoilt factors: their keys, shapes and numbers."""

from pathlib import Path

import numpy as np

from converter.derive.base_model import read_base_model
from converter.values.rows import read_rows
from fixtures.generated import Tensor
from tests.rules.bad.checkpoints import write_checkpoint
from tests.rules.bad.registry import bad
from tests.rules.specimens import (
    EMBEDDING,
    FFN,
    HIDDEN,
    N_LAYER,
    PREFIX,
    RANK,
    SHAPES,
    UP,
    VOCAB,
    Specimen,
    lora,
    tensor,
    write_gguf,
    write_huggingface,
    zeros,
)

MOE = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True}


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


@bad("LO006", "LO011")
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
    it.tensors[f"{UP}.base_layer.bias"] = tensor(HIDDEN)
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


@bad("LO010")
def a_lora_on_the_embeddings_parameter(it: Specimen, bases: Path) -> None:
    it.config["target_parameters"] = ["embed_tokens.weight"]
    linear_factors_of_the_embedding(it, bases)


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


@bad("NM002")
def every_lora_a_lost(it: Specimen, _: Path) -> None:
    it.tensors = {key: zeros(*value[1]) if "lora_A" in key else value for key, value in it.tensors.items()}
    it.write()


@bad("NM002")
def an_alpha_that_no_float_shows(it: Specimen, _: Path) -> None:
    it.config["lora_alpha"] = 1e-25
    it.write()


@bad("NM003")
def one_lora_a_lost(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.lora_A.weight"] = zeros(RANK, FFN)
    it.write()


def lose_rows(it: Specimen, begin: float, end: float) -> None:
    """Make the rows of each lora_B from one share of them to another zero."""
    for key, (dtype, shape, data) in it.tensors.items():
        if "lora_B" in key:
            values = np.frombuffer(data, "<f4").reshape(shape).copy()
            values[int(begin * shape[0]) : int(end * shape[0])] = 0
            it.tensors[key] = (dtype, shape, values.tobytes())


@bad("NM005")
def only_the_first_shard_of_each(it: Specimen, _: Path) -> None:
    lose_rows(it, 1 / 8, 1)
    it.write()


@bad("NM005")
def only_the_last_half_of_each(it: Specimen, _: Path) -> None:
    lose_rows(it, 0, 1 / 2)
    it.write()


@bad("NM005", "NM003")  # a module never reached says nothing of the others
def only_a_shard_of_those_that_were_trained(it: Specimen, _: Path) -> None:
    lose_rows(it, 1 / 4, 1)
    it.tensors[f"{UP}.lora_B.weight"] = zeros(HIDDEN, RANK)
    it.write()


@bad("NM006")
def factors_that_are_the_bases_own(it: Specimen, _: Path) -> None:
    """As PiSSA begins: B the largest left directions of each weight, A what they cut out of it, over the scaling."""
    it.base = write_checkpoint(it.directory.with_name("base"))
    base = read_base_model(it.base)
    for key in [key for key in it.tensors if "lora_A" in key]:
        stored = base.weight(key.removeprefix(f"{PREFIX}.").removesuffix(".lora_A.weight"))
        assert stored is not None
        weight = read_rows(stored, 0, stored.shape[0]).astype(np.float64)
        directions = np.linalg.svd(weight)[0][:, :RANK]
        a = directions.T @ weight * RANK / 32
        it.tensors[key] = ("F32", a.shape, a.astype("<f4").tobytes())
        it.tensors[key.replace("lora_A", "lora_B")] = ("F32", directions.shape, directions.astype("<f4").tobytes())
    it.write()


@bad("NM003")
def a_module_never_reached(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.lora_B.weight"] = zeros(HIDDEN, RANK)
    it.write()


def magnitudes() -> dict[str, Tensor]:
    return {
        f"{PREFIX}.model.layers.{i}.{name}.lora_magnitude_vector": tensor(shape[0])
        for i in range(N_LAYER)
        for name, shape in SHAPES.items()
    }


@bad("LO011")
def a_dora(it: Specimen, _: Path) -> None:
    it.config["use_dora"] = True
    it.tensors |= magnitudes()
    it.write()


@bad("LO012")
def biases_of_the_factors(it: Specimen, _: Path) -> None:
    it.config["lora_bias"] = True
    names = (key for key in it.tensors if key.endswith("lora_B.weight"))
    it.tensors |= {key.replace("weight", "bias"): tensor(it.tensors[key][1][0]) for key in names}
    it.write()


@bad("LO013")
def more_layers(it: Specimen, _: Path) -> None:
    it.config |= {"layer_replication": [[0, 2], [1, 2]], "layers_to_transform": [0, 1]}
    it.write()


@bad("LO014")
def tokens_that_invoke(it: Specimen, _: Path) -> None:
    it.config["alora_invocation_tokens"] = [3, 4]
    it.write()


@bad("LO015", "LO011")
def a_magnitude_missing(it: Specimen, _: Path) -> None:
    it.config["use_dora"] = True
    it.tensors |= magnitudes()
    del it.tensors[f"{UP}.lora_magnitude_vector"]
    it.write()


@bad("LO015")
def rows_missing(it: Specimen, _: Path) -> None:
    it.config["trainable_token_indices"] = [3]
    it.write()


@bad("LO016", "LO011")
def a_magnitude_of_another_length(it: Specimen, _: Path) -> None:
    it.config["use_dora"] = True
    it.tensors |= magnitudes() | {f"{UP}.lora_magnitude_vector": tensor(HIDDEN + 1)}
    it.write()


@bad("LO016", "HD012")
def more_rows_than_tokens(it: Specimen, _: Path) -> None:
    it.config["trainable_token_indices"] = [3]
    it.tensors[f"{EMBEDDING}.token_adapter.trainable_tokens_delta"] = tensor(2, HIDDEN)
    it.write()


@bad("LO017", "HD004")
def a_copy_that_differs(it: Specimen, _: Path) -> None:
    it.config["modules_to_save"] = ["embed_tokens"]
    it.tensors |= {
        f"{EMBEDDING}.weight": tensor(VOCAB, HIDDEN),
        f"{EMBEDDING}.modules_to_save.weight": tensor(VOCAB, HIDDEN, seed=1),
        f"{EMBEDDING}.original_module.weight": tensor(VOCAB, HIDDEN, seed=2),
    }
    it.write()


def give_experts(it: Specimen, n_out: int, n_in: int, **fields: object) -> None:
    """Make it a LoRA on all experts' gate_up_proj, lora_A with n_in columns and lora_B with n_out rows."""
    it.base = None
    it.config |= {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj"], **fields}
    experts = [f"{PREFIX}.model.layers.{i}.mlp.experts" for i in range(N_LAYER)]
    n = MOE["num_experts"]
    it.tensors = {}
    for module in experts:
        it.tensors[f"{module}.lora_A.weight"] = tensor(n * RANK, n_in)
        it.tensors[f"{module}.lora_B.weight"] = tensor(n_out, RANK * n)
    it.write()


@bad("LO024")
def experts_of_a_peft_that_turned_them(it: Specimen, _: Path) -> None:
    give_experts(it, HIDDEN, 2 * MOE["moe_intermediate_size"], peft_version="0.18.1")


@bad("LO024")
def experts_that_fit_either_way(it: Specimen, _: Path) -> None:
    give_experts(it, HIDDEN, HIDDEN, peft_version="0.19.0")


@bad("LO024")
def experts_of_a_peft_that_is_not_told(it: Specimen, _: Path) -> None:
    give_experts(it, 2 * MOE["moe_intermediate_size"], HIDDEN, peft_version=None)


@bad("LO024")
def experts_whose_shapes_tell_that_they_are_turned(it: Specimen, _: Path) -> None:
    """Llama 4's, which today's PEFT takes for (out, in)."""
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    n, inner = MOE["num_experts"], MOE["moe_intermediate_size"]
    give_experts(it, inner, HIDDEN, peft_version="0.21.2", target_parameters=parameters)
    for module in [key.removesuffix(".lora_A.weight") for key in it.tensors if "lora_A" in key]:
        it.tensors[f"{module}.base_layer.lora_A.weight"] = tensor(n * RANK, 2 * inner)
        it.tensors[f"{module}.base_layer.lora_B.weight"] = tensor(HIDDEN, RANK * n)
    it.write()


@bad("GG004", "LO007")
def a_bias_that_gemma_has_not(it: Specimen, bases: Path) -> None:
    it.base = bases / "gemma.gguf"
    it.config["bias"] = "all"
    it.tensors[f"{UP}.base_layer.bias"] = tensor(HIDDEN)
    it.write()


@bad("GG005", "BM040", "BM042")
def positions_of_gpt2(it: Specimen, bases: Path) -> None:
    sizes = {"n_embd": HIDDEN, "n_layer": N_LAYER, "n_head": 4, "n_positions": 64, "vocab_size": VOCAB}
    it.base = write_huggingface(bases / "gpt2", model_type="gpt2", **sizes)
    wpe = f"{PREFIX}.transformer.wpe"
    it.config["target_modules"] = ["wpe"]
    it.tensors = {
        f"{wpe}.lora_embedding_A": tensor(RANK, 64),
        f"{wpe}.lora_embedding_B": tensor(HIDDEN, RANK),
    }
    it.write()


@bad("GG009", "BM040", "BM042")
def an_embedding_behind_a_norm(it: Specimen, bases: Path) -> None:
    it.base = write_huggingface(bases / "muse", model_type="muse_glimmer_text", tie_word_embeddings=False)
    it.tensors |= {
        f"{EMBEDDING}.lora_embedding_A": tensor(RANK, VOCAB),
        f"{EMBEDDING}.lora_embedding_B": tensor(HIDDEN, RANK),
    }
    it.write()


@bad("GG010", "CF005")
def a_loha_on_what_a_gguf_has_in_parts(it: Specimen, bases: Path) -> None:
    parts = (("ffn_gate", (FFN, HIDDEN)), ("ffn_up", (FFN, HIDDEN)))
    it.base = write_gguf(bases / "granite4.gguf", "granite", keys={"ssm.conv_kernel": 4}, more=parts)
    module = f"{PREFIX}.model.layers.0.shared_mlp.input_linear"
    it.config = {"peft_type": "LOHA", "target_modules": ["input_linear"]}
    it.tensors = {f"{module}.hada_w{i}_a": tensor(2 * FFN, RANK) for i in (1, 2)}
    it.tensors |= {f"{module}.hada_w{i}_b": tensor(RANK, HIDDEN) for i in (1, 2)}
    it.write()


@bad("GG006", "BM040", "BM042")
def experts_of_two_ranks(it: Specimen, bases: Path) -> None:
    it.base = write_huggingface(bases / "qwen3moe", model_type="qwen3_moe", **MOE)
    it.config |= {"target_modules": ["up_proj"], "rank_pattern": {"experts.2.up_proj": RANK + 1}}
    experts = [f"{PREFIX}.model.layers.{i}.mlp.experts.{e}.up_proj" for i in range(N_LAYER) for e in range(3)]
    it.tensors = {}
    for expert in experts:
        it.tensors |= lora(expert, 24, HIDDEN, RANK + 1 if "experts.2" in expert else RANK)
    it.write()


@bad("GG007", "LO013")
def moved_layers_of_gemma2(it: Specimen, bases: Path) -> None:
    it.base = write_gguf(bases / "gemma2.gguf", "gemma2")
    it.config |= {"layer_replication": [[0, 2], [1, 2]], "layers_to_transform": [0, 1]}
    it.write()


@bad("GG008", "LO013")
def layers_beyond_the_base(it: Specimen, _: Path) -> None:
    it.config["layer_replication"] = [[0, 3]]
    it.write()


@bad("NM004")
def an_alpha_of_another_order(it: Specimen, _: Path) -> None:
    it.config["lora_alpha"] = 1e38
    it.write()


@bad("NM004")
def a_factor_that_f16_can_not_pass_on(it: Specimen, _: Path) -> None:
    a, b = (f"{UP}.lora_{factor}.weight" for factor in "AB")
    large, small = (np.frombuffer(it.tensors[key][2], "<f4") for key in (a, b))
    it.tensors[a] = ("F32", it.tensors[a][1], (large * 1e4).tobytes())
    it.tensors[b] = ("F16", it.tensors[b][1], (small * 1e-4).astype("<f2").tobytes())
    it.write()


@bad("NM004", "LO007")
def a_norm_of_1e30(it: Specimen, _: Path) -> None:
    it.config["modules_to_save"] = ["norm"]
    it.tensors[f"{PREFIX}.model.norm.weight"] = ("F32", (HIDDEN,), np.full(HIDDEN, 1e30, "<f4").tobytes())
    it.write()


@bad("LO006", "LO015")
def rows_of_a_head_that_one_list_does_not_name(it: Specimen, bases: Path) -> None:
    it.base = bases / "untied.gguf"
    it.config["trainable_token_indices"] = [3]
    it.tensors[f"{PREFIX}.lm_head.token_adapter.trainable_tokens_delta"] = tensor(1, HIDDEN)
    it.write()
