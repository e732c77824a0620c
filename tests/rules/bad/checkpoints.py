"""Hugging Face directories of which no GGUF can be made: each lacks one thing, or has one thing too much."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fixtures.generated import Tensor, write_safetensors
from tests.rules.bad.registry import bad
from tests.rules.specimens import (
    FFN,
    HEAD_DIM,
    HIDDEN,
    N_HEAD,
    N_HEAD_KV,
    N_LAYER,
    PREFIX,
    Specimen,
    base_embedding,
    lora,
    tensor,
    write_huggingface,
)

Q, KV = N_HEAD * HEAD_DIM, N_HEAD_KV * HEAD_DIM
LAYER = {
    "self_attn.q_proj": (Q, HIDDEN),
    "self_attn.k_proj": (KV, HIDDEN),
    "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, Q),
    "mlp.gate_proj": (FFN, HIDDEN),
    "mlp.up_proj": (FFN, HIDDEN),
    "mlp.down_proj": (HIDDEN, FFN),
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
}
TOKENIZER: Mapping[str, Any] = {
    "added_tokens": [{"id": 0, "content": "<|end|>", "special": True}],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": None,
    "model": {"type": "BPE", "vocab": {"<|end|>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]},
}


def write_checkpoint(directory: Path, **changes: object) -> Path:
    """Write a whole base: config, weights, tokenizer."""
    write_huggingface(directory, **changes)
    write_safetensors(directory / "model.safetensors", weights())
    write_tokenizer(directory, TOKENIZER)
    return directory


def weights() -> dict[str, Tensor]:
    """The weights of a tiny llama."""
    found = {"model.embed_tokens.weight": base_embedding(), "model.norm.weight": tensor(HIDDEN)}
    for i in range(N_LAYER):
        found |= {f"model.layers.{i}.{name}.weight": tensor(*shape, seed=i) for name, shape in LAYER.items()}
    return found


def write_tokenizer(directory: Path, tokenizer: Mapping[str, Any]) -> None:
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}), encoding="utf-8")


def on_checkpoint(it: Specimen, **changes: object) -> Path:
    """Put the specimen on a whole base of its own."""
    it.write()
    it.base = write_checkpoint(it.directory.with_name("checkpoint"), **changes)
    return it.base


Change = Callable[[dict[str, Tensor]], object]


def on_weights(it: Specimen, change: Change) -> None:
    base, changed = on_checkpoint(it), weights()
    change(changed)
    write_safetensors(base / "model.safetensors", changed)


@bad("BM040", "BM042")
def a_base_that_is_its_config_alone(it: Specimen, _: Path) -> None:
    it.base = write_huggingface(it.directory.with_name("base"))
    it.write()


@bad("BM040")
def a_layer_without_a_norm(it: Specimen, _: Path) -> None:
    on_weights(it, lambda changed: changed.pop("model.layers.1.input_layernorm.weight"))


@bad("BM040")
def a_projection_of_another_shape(it: Specimen, _: Path) -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    on_weights(it, lambda changed: changed.update({name: tensor(KV + 1, HIDDEN)}))


@bad("BM040")
def a_projection_of_whole_numbers(it: Specimen, _: Path) -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    on_weights(it, lambda changed: changed.update({name: ("U8", (KV, HIDDEN), bytes(KV * HIDDEN))}))


@bad("BM040")
def a_base_whose_weights_are_pickles(it: Specimen, _: Path) -> None:
    base = on_checkpoint(it)
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


@bad("BM041")
def a_norm_of_q_that_llama_has_not(it: Specimen, _: Path) -> None:
    name = "model.layers.0.self_attn.q_norm.weight"
    on_weights(it, lambda changed: changed.update({name: tensor(HEAD_DIM)}))


@bad("BM042")
def a_base_without_a_tokenizer(it: Specimen, _: Path) -> None:
    (on_checkpoint(it) / "tokenizer.json").unlink()


def on_tokenizer(it: Specimen, **changes: object) -> None:
    write_tokenizer(on_checkpoint(it), {**TOKENIZER, **changes, "model": changes.get("model", TOKENIZER["model"])})


@bad("BM043")
def a_pre_tokenizer_of_ones_own(it: Specimen, _: Path) -> None:
    on_tokenizer(it, pre_tokenizer={**TOKENIZER["pre_tokenizer"], "add_prefix_space": True})


@bad("BM043")
def a_tokenizer_that_lowers(it: Specimen, _: Path) -> None:
    on_tokenizer(it, normalizer={"type": "Lowercase"})


@bad("BM043")
def a_tokenizer_of_words(it: Specimen, _: Path) -> None:
    on_tokenizer(it, model={"type": "WordPiece", "vocab": {"[UNK]": 0}})


@bad("BM043")
def a_tokenizer_with_a_prompt(it: Specimen, _: Path) -> None:
    pieces = [{"SpecialToken": {"id": "ab", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    specials = {"ab": {"id": "ab", "ids": [3], "tokens": ["ab"]}}
    on_tokenizer(it, post_processor={"type": "TemplateProcessing", "single": pieces, "special_tokens": specials})


SPACES: Mapping[str, Any] = {
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "pre_tokenizer": None,
}
VOCABULARY = {token: i for i, token in enumerate(("<|end|>", "a", "b", "c", "ab", "bc", "abc"))}


@bad("BM047")
def a_token_whose_merges_lie_apart(it: Specimen, _: Path) -> None:
    merges = [["a", "b"], ["ab", "c"], ["b", "c"], ["a", "bc"]]
    on_tokenizer(it, **SPACES, model={"type": "BPE", "vocab": VOCABULARY, "merges": merges})


@bad("BM047")
def a_token_that_lacks_a_merge(it: Specimen, _: Path) -> None:
    merges = [["a", "b"], ["b", "c"], ["ab", "c"]]
    on_tokenizer(it, **SPACES, model={"type": "BPE", "vocab": VOCABULARY, "merges": merges})


@bad("BM044")
def a_rope_that_grows(it: Specimen, _: Path) -> None:
    on_checkpoint(it, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})


@bad("BM044")
def a_yarn_of_other_betas(it: Specimen, _: Path) -> None:
    on_checkpoint(it, rope_scaling={"type": "yarn", "factor": 2.0, "beta_slow": 2.0})


@bad("BM044")
def a_half_rotated_llama(it: Specimen, _: Path) -> None:
    on_checkpoint(it, partial_rotary_factor=0.5)


@bad("BM045")
def another_activation(it: Specimen, _: Path) -> None:
    on_checkpoint(it, hidden_act="gelu")


@bad("BM046")
def an_epsilon_below_zero(it: Specimen, _: Path) -> None:
    on_checkpoint(it, rms_norm_eps=-1e-6)


@bad("BM046")
def a_context_beyond_32_bits(it: Specimen, _: Path) -> None:
    on_checkpoint(it, max_position_embeddings=2**32)


@bad("BM046")
def a_rotary_base_that_no_float_holds(it: Specimen, _: Path) -> None:
    on_checkpoint(it, rope_parameters={"rope_type": "default", "rope_theta": 10**400})


@bad("BM046")
def a_llama3_rope_without_a_middle(it: Specimen, _: Path) -> None:
    lengths = {"low_freq_factor": 4.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    on_checkpoint(it, rope_parameters={"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, **lengths})


@bad("BM048")
def a_gpt_oss(it: Specimen, _: Path) -> None:
    it.tensors = lora(f"{PREFIX}.model.layers.0.self_attn.q_proj", Q, HIDDEN)
    it.config["target_modules"], it.config["layers_to_transform"] = ["q_proj"], [0]
    on_checkpoint(it, model_type="gpt_oss", tie_word_embeddings=False)


@bad("BM049", "BM040", "BM042")
def a_falcon_h1_of_keys_times_nothing(it: Specimen, bases: Path) -> None:
    it.tensors = lora(f"{PREFIX}.model.layers.0.self_attn.q_proj", Q, HIDDEN)
    it.config["target_modules"], it.config["layers_to_transform"] = ["q_proj"], [0]
    it.base = write_huggingface(
        bases / "falcon-h1", model_type="falcon_h1", tie_word_embeddings=False, key_multiplier=0.0
    )
    it.write()


@bad("BM049", "BM040", "BM042")
def a_falcon_h1_of_keys_times_more_than_a_float_holds(it: Specimen, bases: Path) -> None:
    a_falcon_h1_of_keys_times_nothing(it, bases)
    config = json.loads((bases / "falcon-h1" / "config.json").read_bytes())
    (bases / "falcon-h1" / "config.json").write_text(
        json.dumps({**config, "key_multiplier": 10**400}), encoding="utf-8"
    )


@bad("BM027")
def a_base_of_two_equal_tokens(it: Specimen, _: Path) -> None:
    added = [*TOKENIZER["added_tokens"], {"id": 4, "content": "a\0b"}, {"id": 5, "content": "[PAD7]"}]
    on_tokenizer(it, added_tokens=added)
