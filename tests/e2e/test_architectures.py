"""What converter/architectures says about llama.cpp's graphs is what llama.cpp does.

A graph may ignore in silence what its loader took, so each bias and each LoRA is put into a file and has to be seen in
the logits. A bias is refused, or it changes them; a LoRA changes them as the merged weight does, or not at all.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGUFReader, GGUFWriter

from converter.architectures import NAMES, Architecture, architecture_named, architecture_of_table
from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed
from fixtures.more_models import KINDS, MoreModel
from fixtures.tiny import CONFIGS, MORE, TinyModel, token_sequences

pytestmark = pytest.mark.llama

Array = npt.NDArray[np.float32]


def _models(name: str) -> Iterator[str]:
    """A model of each architecture, and those that have tensors which it hasn't."""
    yield name if name in {**CONFIGS, **MORE} else next(it for it in KINDS if architecture_of_table(it) == name)
    yield from {"gemma4": ["gemma4-26b"]}.get(name, [])


CASES = [(name, model) for name in NAMES for model in _models(name)]
# Whose LoRA llama.cpp adds behind a scale that belongs to it too.
APPLIED_OTHERWISE = {"gemma4": "ffn_down_exps"}
LAYERS = ("1", "0", "2", "3")
RANK = 2
SEQUENCES = token_sequences(1)


@pytest.mark.parametrize(("name", "model"), CASES)
def test_a_bias_is_used_where_its_architecture_says_so(
    name: str, model: str, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    architecture = _architecture(name)
    base = _base(architecture, model)
    before, tensors = llama_cpp.logits(base, SEQUENCES)[0], _tensors(base)
    used, flags = {}, _flags(architecture, "bias", tensors)
    for stem in flags:
        weight = tensors.get(f"{stem}.weight", tensors["token_embd.weight"])  # Gemma 1 and 2 have no other head
        noise = _noise(*(weight.shape if weight.ndim == 1 else weight.shape[:-1]))
        file = _with_tensors(base, tmp_path / f"{stem}.gguf", {f"{stem}.bias": noise})
        with suppress(LlamaCppFailed):  # "wrong number of tensors"
            used[stem] = not np.array_equal(llama_cpp.logits(file, SEQUENCES)[0], before)
    assert {stem for stem, is_used in used.items() if is_used} == {stem for stem, flag in flags.items() if flag}


@pytest.mark.parametrize(("name", "model"), CASES)
def test_a_lora_is_honoured_where_its_architecture_says_so(
    name: str, model: str, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    architecture = _architecture(name)
    base = _base(architecture, model)
    before, tensors = llama_cpp.logits(base, SEQUENCES)[0], _tensors(base)
    said = _flags(architecture, "lora", tensors)
    flags = {stem: flag for stem, flag in said.items() if f"{stem}.weight" in tensors}
    if not architecture.graph.reads_output:
        # Whatever the graph does with them: the two ends are one tensor, and rules of their own refuse these LoRAs.
        flags = {stem: flag for stem, flag in flags.items() if stem not in {"token_embd", "output"}}
    honoured = {}
    for stem in flags:
        weight = f"{stem}.weight"
        a, b = _factors(tensors[weight])
        merged = _with_tensors(base, tmp_path / f"{stem}-merged.gguf", {weight: tensors[weight] + _product(a, b)})
        lora = _lora(tmp_path / f"{stem}-lora.gguf", architecture, weight, a, b)
        wanted, found = llama_cpp.logits(merged, SEQUENCES)[0], before
        with suppress(LlamaCppFailed):  # "has incorrect shape": Gemma 4's embeddings of layers
            found = llama_cpp.logits(base, SEQUENCES, lora)[0]
        assert np.abs(wanted - before).max() > 0.1
        honoured[stem] = np.abs(found - wanted).max() < 0.01 * np.abs(wanted - before).max()
        assert honoured[stem] or np.array_equal(found, before) or stem.endswith(APPLIED_OTHERWISE.get(name, ()))
    assert honoured == flags


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_in_a_model_that_is_tried(name: str) -> None:
    architecture = _architecture(name)
    models = [model for of, model in CASES if of == name]
    lacking = [
        set(_flags(architecture, "lora", tensors)) - set(_stems(tensors)) for tensors in _all(architecture, models)
    ]
    assert set.intersection(*lacking) == (set() if architecture.graph.reads_output else {"output"})


def _architecture(name: str) -> Architecture:
    architecture = architecture_named(name)
    assert architecture
    return architecture


def _base(architecture: Architecture, model: str) -> Path:
    if model in {**CONFIGS, **MORE}:
        return TinyModel(model, tied=not architecture.graph.reads_output).gguf
    return MoreModel(model).gguf


def _all(architecture: Architecture, models: list[str]) -> Iterator[Mapping[str, Array]]:
    return (_tensors(_base(architecture, model)) for model in models)


def _stems(tensors: Mapping[str, Array]) -> list[str]:
    return [name.removesuffix(".weight") for name in tensors]


def _flags(architecture: Architecture, flag: str, tensors: Mapping[str, Array]) -> dict[str, bool]:
    """What is said of each tensor, in one layer that has it. Modules that share a tensor have to agree."""
    said: dict[str, set[bool]] = {}
    for targets in architecture.modules.values():
        for target in (target for target in targets if target.parameter == "weight"):
            stems = [target.tensor.replace("{i}", layer) for layer in LAYERS]
            stem = next((stem for stem in stems if f"{stem}.weight" in tensors), stems[0])
            said.setdefault(stem, set()).add(getattr(target, flag))
    assert all(len(flags) == 1 for flags in said.values())
    return {stem: flags.pop() for stem, flags in said.items()}


def _factors(weight: Array) -> tuple[Array, Array]:
    """lora_A and lora_B of a matrix, of each expert's, or of a vector as a matrix of one row."""
    *experts, n_out, n_in = weight.shape if weight.ndim > 1 else (1, *weight.shape)
    return _noise(*experts, RANK, n_in), _noise(*experts, n_out, RANK)


def _product(a: Array, b: Array) -> Array:
    product: Array = b @ a
    return product[0] if len(product) == 1 else product


def _noise(*shape: int) -> Array:
    return 0.3 * np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def _tensors(path: Path) -> dict[str, Array]:
    return {tensor.name: np.array(tensor.data) for tensor in GGUFReader(path).tensors}


def _with_tensors(base: Path, path: Path, changed: Mapping[str, Array]) -> Path:
    """A copy of an F32 model in which these tensors are others, or new."""
    reader = GGUFReader(base)
    writer = GGUFWriter(path, str(reader.fields["general.architecture"].contents()))
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer.add_key_value(key, field.contents(), field.types[0])
    return _written(writer, {**_tensors(base), **changed})


def _lora(path: Path, architecture: Architecture, weight: str, a: Array, b: Array) -> Path:
    if weight == "token_embd.weight":  # looked up, not multiplied by: llama.cpp wants A by tokens
        a, b = b, a.T
    writer = GGUFWriter(path, architecture.name)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", RANK)
    return _written(writer, {f"{weight}.lora_a": a, f"{weight}.lora_b": b})


def _written(writer: GGUFWriter, tensors: Mapping[str, Array]) -> Path:
    for name, values in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert writer.path
    return writer.path
