"""What the servers that an adapter goes to make of it."""

from pathlib import Path

from tests.rules.bad.registry import bad
from tests.rules.specimens import Specimen, write_huggingface

# Of a directory with config.json alone no GGUF can be made, which no server minds.
CONFIG_ALONE = ("BM040", "BM042")


def on(architecture: str, it: Specimen, bases: Path) -> None:
    it.base = write_huggingface(bases / architecture, architectures=[architecture])
    it.write()


@bad("TG001")
def directory_of_peft_for_mlx(it: Specimen, _: Path) -> None:
    it.write()
    it.targets = ("mlx",)


@bad("TG002", *CONFIG_ALONE)
def rslora_for_sglang(it: Specimen, bases: Path) -> None:
    it.config["use_rslora"] = True
    on("LlamaForCausalLM", it, bases)
    it.targets = ("sglang",)


@bad("TG003", *CONFIG_ALONE)
def untried_feature(it: Specimen, bases: Path) -> None:
    it.config["bias"] = "all"
    on("LlamaForCausalLM", it, bases)
    it.targets = ("tensorrt-llm",)


@bad("TG004")
def class_that_a_gguf_does_not_say(it: Specimen, _: Path) -> None:
    it.write()
    it.targets = ("vllm",)


@bad("TG005")
def version_that_nobody_tried(it: Specimen, _: Path) -> None:
    it.write()
    it.targets = ("vllm@0.31.1",)
