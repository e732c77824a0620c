"""Adapters that don't go with their base, or not with llama.cpp."""

import struct
from pathlib import Path

from gguf import GGUFValueType

from converter.diagnostics import Deployment
from tests.rules.bad.registry import bad
from tests.rules.specimens import (
    FFN,
    HEAD,
    HEAD_DIM,
    HIDDEN,
    PREFIX,
    UP,
    VOCAB,
    Specimen,
    head_lora,
    lora,
    tensor,
    write_checkpoint,
    write_gguf,
    write_huggingface,
)


@bad("BM001")
def a_layer_too_many(it: Specimen, _: Path) -> None:
    it.tensors |= lora(f"{PREFIX}.model.layers.2.mlp.down_proj", HIDDEN, FFN)
    it.write()


@bad("BM002")
def a_wider_model(it: Specimen, _: Path) -> None:
    it.tensors |= lora(UP, HIDDEN, 2 * FFN)
    it.write()


@bad("BM003")
def a_base_of_no_known_architecture(it: Specimen, _: Path) -> None:
    it.base = write_huggingface(it.directory.with_name("base"), model_type="rwkv")
    it.write()


@bad("BM050", "BM003")
def a_checkpoint_of_another_model(it: Specimen, bases: Path) -> None:
    """It has the very shapes, and other numbers."""
    it.base = write_gguf(bases / "nobodys.gguf", "nobodys", tied=False, seed=1)
    it.checkpoint = write_checkpoint(
        it.directory.with_name("checkpoint"), write_gguf(bases / "another-nobodys.gguf", "nobodys", seed=2)
    )
    it.deployment = Deployment("model")
    it.write()


@bad("BM004")
def a_base_packed_by_bitsandbytes(it: Specimen, _: Path) -> None:
    packed = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    it.base = write_huggingface(it.directory.with_name("base"), quantization_config=packed)
    it.write()


@bad("BM005")
def a_wider_base_layer(it: Specimen, bases: Path) -> None:
    it.base = bases / "untied.gguf"
    it.tensors |= head_lora() | {f"{HEAD}.base_layer.weight": tensor(VOCAB, HIDDEN + 2)}
    it.write()


@bad("GG001")
def any_adapter_of_an_untied_gemma(it: Specimen, bases: Path) -> None:
    it.base = write_gguf(bases / "untied-gemma.gguf", "gemma", tied=False)
    it.write()


@bad("GG002")
def a_lora_on_a_norm(it: Specimen, _: Path) -> None:
    it.tensors |= lora(f"{PREFIX}.model.layers.0.input_layernorm", HIDDEN, 1)
    it.write()


@bad("BM040")
def sizes_that_the_matrices_do_not_have(it: Specimen, bases: Path) -> None:
    """Without key_length a head has half as many rows, and the order of q_proj would take half of them."""
    it.base = bases / "no-key-length.gguf"
    it.base.write_bytes((bases / "tied.gguf").read_bytes().replace(b"attention.key_length", b"attention.key_lenght"))
    it.write()


@bad("BM040")
def an_order_that_goes_beyond_the_smallest_matrices(it: Specimen, bases: Path) -> None:
    """Heads are said to be twice as wide as they are; the smallest matrices are looked at for what PiSSA leaves."""
    key = b"attention.key_length" + struct.pack("<I", GGUFValueType.UINT32)
    true, said = (key + struct.pack("<I", size) for size in (HEAD_DIM, 2 * HEAD_DIM))
    it.base = bases / "twice-the-key-length.gguf"
    it.base.write_bytes((bases / "tied.gguf").read_bytes().replace(true, said))
    it.tensors = {key: value for key, value in it.tensors.items() if "q_proj" in key}
    it.config["target_modules"] = ["q_proj"]
    it.write()
