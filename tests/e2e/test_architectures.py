"""What converter/architectures says about llama.cpp's graphs is what llama.cpp does.

Of each bias and each LoRA that a table speaks of: a bias is refused, or it changes the logits; a LoRA changes them as
the merged weight does, or not at all.
"""

from collections.abc import Container, Iterator
from pathlib import Path

import pytest

from converter.architectures import NAMES, Architecture, architecture_named, architecture_of_table
from converter.verification.llama_cpp import LlamaCpp
from fixtures.measure import tensors
from fixtures.more_models import KINDS, MoreModel
from fixtures.tiny import CONFIGS, MORE, TinyModel
from tools.honoured import Graph

pytestmark = pytest.mark.llama

LAYERS = ("1", "0", "2", "3")

MORE_MODELS = {
    "deepseek2": ["deepseek_v2-lite"],
    "gemma4": ["gemma4-26b"],
    "granitehybrid": ["granitehybrid-dense"],
}


def _models(name: str) -> Iterator[str]:
    """A model of each architecture, and those that have tensors which it hasn't."""
    yield name if name in {**CONFIGS, **MORE} else next(it for it in KINDS if architecture_of_table(it) == name)
    yield from MORE_MODELS.get(name, [])


CASES = [(name, model) for name in NAMES for model in _models(name)]
# Whose LoRA llama.cpp adds without a factor that belongs to it.
APPLIED_OTHERWISE = {"gemma4-26b": {"blk.1.ffn_down_exps"}}
# Biases that it adds and that tables don't have: it does so in some layers only, or llama.cpp's converter multiplies
# them by what only the weights are to be multiplied by.
BIASES_LEFT_OUT = {
    "gemma3n": ("attn_q", "attn_k", "attn_v"),
    "falcon-h1": ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_down"),
}


@pytest.mark.parametrize(("name", "model"), CASES)
def test_a_bias_is_used_where_its_architecture_says_so(name: str, model: str, llama_cpp: LlamaCpp) -> None:
    architecture = _architecture(name)
    with Graph(_base(architecture, model), llama_cpp) as graph:
        said = _flags(architecture, "bias", graph.tensors)
        flags = {stem: flag for stem, flag in said.items() if f"{stem}.weight" in graph.tensors or stem == "output"}
        found = {stem: graph.adds_bias(stem) for stem in flags}
        assert found == {**flags, **{f"blk.1.{stem}": True for stem in BIASES_LEFT_OUT.get(model, ())}}


@pytest.mark.parametrize(("name", "model"), CASES)
def test_a_lora_is_honoured_where_its_architecture_says_so(name: str, model: str, llama_cpp: LlamaCpp) -> None:
    architecture = _architecture(name)
    with Graph(_base(architecture, model), llama_cpp) as graph:
        said = _flags(architecture, "lora", graph.tensors)
        flags = {stem: flag for stem, flag in said.items() if f"{stem}.weight" in graph.tensors}
        if not architecture.graph.reads_output:
            # Whatever the graph does with them: the two ends are one tensor, and rules of their own refuse these LoRAs.
            flags = {stem: flag for stem, flag in flags.items() if stem not in {"token_embd", "output"}}
        found = {stem: graph.honours_lora(f"{stem}.weight") for stem in flags}
        assert {stem: bool(honoured) for stem, honoured in found.items()} == flags
        assert {stem for stem in found if found[stem] is None} == APPLIED_OTHERWISE.get(model, set())


@pytest.mark.parametrize("name", NAMES)
def test_a_head_is_read_where_its_architecture_says_so(name: str, llama_cpp: LlamaCpp) -> None:
    architecture = _architecture(name)
    with Graph(_base(architecture, next(_models(name))), llama_cpp) as graph:
        assert graph.reads_head() == architecture.graph.reads_output


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_in_a_model_that_is_tried(name: str) -> None:
    architecture = _architecture(name)
    files = [tensors(_base(architecture, model)) for model in _models(name)]
    stems = [{name.removesuffix(".weight") for name in file} for file in files]
    lacking = [set(_flags(architecture, "lora", file)) - there for file, there in zip(files, stems, strict=True)]
    assert set.intersection(*lacking) == (set() if architecture.graph.reads_output else {"output"})


def _architecture(name: str) -> Architecture:
    architecture = architecture_named(name)
    assert architecture
    return architecture


def _base(architecture: Architecture, model: str) -> Path:
    if model in {**CONFIGS, **MORE}:
        return TinyModel(model, tied=not architecture.graph.reads_output).gguf
    return MoreModel(model).gguf


def _flags(architecture: Architecture, flag: str, tensors: Container[str]) -> dict[str, bool]:
    """What is said of each tensor, in one layer that has it. Modules that share a tensor have to agree."""
    said: dict[str, set[bool]] = {}
    for targets in architecture.modules.values():
        for target in targets:
            if target.bare:  # a parameter by itself, which neither is put on
                continue
            stems = [target.tensor.replace("{i}", layer) for layer in LAYERS]
            stem = next((stem for stem in stems if f"{stem}.weight" in tensors), stems[0])
            said.setdefault(stem, set()).add(getattr(target, flag))
    assert all(len(flags) == 1 for flags in said.values())
    return {stem: flags.pop() for stem, flags in said.items()}
