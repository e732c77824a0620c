"""Adapters of head and embedding that can't be deployed as they are."""

from pathlib import Path

from tests.rules.bad.registry import bad
from tests.rules.specimens import (
    EMBEDDING,
    FFN,
    HEAD,
    HIDDEN,
    RANK,
    UP,
    VOCAB,
    Specimen,
    base_embedding,
    embedding_lora,
    head_lora,
    tensor,
    transposed,
)


@bad("HD001")
def a_head(it: Specimen, _: Path) -> None:
    it.tensors |= head_lora() | {f"{HEAD}.base_layer.weight": base_embedding()}
    it.write()


@bad("HD002")
def a_saved_head(it: Specimen, _: Path) -> None:
    it.config["modules_to_save"] = ["lm_head"]
    it.tensors[f"{HEAD}.weight"] = tensor(VOCAB, HIDDEN)
    it.write()


@bad("HD003")
def an_embedding(it: Specimen, _: Path) -> None:
    it.tensors |= embedding_lora() | {f"{EMBEDDING}.base_layer.weight": base_embedding()}
    it.write()


@bad("HD004")
def a_saved_embedding(it: Specimen, _: Path) -> None:
    it.config["modules_to_save"] = ["embed_tokens"]
    it.tensors[f"{EMBEDDING}.modules_to_save.default.weight"] = tensor(VOCAB, HIDDEN)
    it.write()


@bad("HD005")
def a_tied_pair(it: Specimen, _: Path) -> None:
    it.config["ensure_weight_tying"] = True
    it.tensors |= head_lora() | embedding_lora()
    it.write()


@bad("HD006", "HD005")  # a tied pair, whatever its numbers, is no LoRA file
def a_pair_that_differs(it: Specimen, _: Path) -> None:
    it.config["ensure_weight_tying"] = True
    it.tensors |= head_lora() | embedding_lora()
    it.tensors[f"{EMBEDDING}.lora_embedding_A"] = transposed(tensor(VOCAB, RANK, seed=1))
    it.write()


@bad("HD007")
def a_head_without_a_base(it: Specimen, _: Path) -> None:
    it.base = None
    it.tensors |= head_lora()
    it.write()


@bad("HD008")
def the_base_layer_of_another_base(it: Specimen, bases: Path) -> None:
    it.base = bases / "untied.gguf"
    it.tensors |= head_lora() | {f"{HEAD}.base_layer.weight": base_embedding()}
    it.write()


@bad("HD009")
def a_base_layer_alone(it: Specimen, _: Path) -> None:
    it.tensors[f"{HEAD}.base_layer.weight"] = base_embedding()
    it.write()


@bad("HD009")
def the_base_layer_of_a_linear_module(it: Specimen, _: Path) -> None:
    it.tensors[f"{UP}.base_layer.weight"] = tensor(HIDDEN, FFN)
    it.write()


@bad("HD010")
def a_saved_head_of_an_untied_base(it: Specimen, bases: Path) -> None:
    it.base = bases / "untied.gguf"
    it.config["modules_to_save"] = ["lm_head"]
    it.tensors[f"{HEAD}.weight"] = tensor(VOCAB, HIDDEN)
    it.write()


@bad("HD010")
def an_embedding_that_nobody_named(it: Specimen, _: Path) -> None:
    """PEFT saves the ends of a resized model so; on a tied base they are one."""
    it.tensors[f"{EMBEDDING}.weight"] = tensor(VOCAB, HIDDEN)
    it.write()


@bad("HD012")
def rows_of_tokens(it: Specimen, _: Path) -> None:
    it.config["trainable_token_indices"] = [3, 0]
    it.tensors[f"{EMBEDDING}.token_adapter.trainable_tokens_delta"] = tensor(2, HIDDEN)
    it.write()


@bad("HD013", "HD012")
def rows_of_the_head(it: Specimen, _: Path) -> None:
    it.config["trainable_token_indices"] = {"lm_head": [3]}
    it.tensors[f"{HEAD}.token_adapter.trainable_tokens_delta"] = tensor(1, HIDDEN)
    it.write()


@bad("HD014", "HD010")  # a saved pair, whatever its numbers, is no LoRA file
def a_saved_pair_that_differs(it: Specimen, _: Path) -> None:
    it.config |= {"modules_to_save": ["model.embed_tokens"], "ensure_weight_tying": True}
    it.tensors |= {f"{EMBEDDING}.weight": tensor(VOCAB, HIDDEN), f"{HEAD}.weight": tensor(VOCAB, HIDDEN, seed=1)}
    it.write()


@bad("HD015", "HD012")
def rows_of_a_tied_head(it: Specimen, bases: Path) -> None:
    it.base = bases / "untied.gguf"
    it.config["trainable_token_indices"] = [3, 0]
    rows = tensor(2, HIDDEN)
    it.tensors |= {f"{end}.token_adapter.trainable_tokens_delta": rows for end in (EMBEDDING, HEAD)}
    it.write()
