"""What llama.cpp's graph does with what its loader took: a LoRA, a bias or a head of its own, one tensor at a time.

A graph may ignore in silence what is in a file, so each is put into one, and has to be seen in the logits: a LoRA on
one tensor alone as the same delta merged into that tensor.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, GGUFWriter

from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed
from fixtures.measure import tensors
from fixtures.tiny import token_sequences

Array = npt.NDArray[np.float32]
SEQUENCES: Final = token_sequences(1)
RANK: Final = 2
EMBEDDING: Final = "token_embd.weight"


class Graph:
    """An F32 model in real llama.cpp, and what is measured of it."""

    def __init__(self, model: Path, llama_cpp: LlamaCpp) -> None:
        self._model, self._llama_cpp = model, llama_cpp
        self._folder = TemporaryDirectory()
        self.tensors = tensors(model)
        self.architecture = str(GGUFReader(model).fields["general.architecture"].contents())
        self._before = self._logits(model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def honours_lora(self, weight: str) -> bool | None:
        """Whether a LoRA on a tensor is applied as it is merged; None where the graph applies another one.

        False where it is ignored or refused. Raises ValueError where not even the merged delta is seen.
        """
        a, b = _factors(self.tensors[weight])
        merged = self._logits(self._with({weight: self.tensors[weight] + _product(a, b)}))
        effect = np.abs(merged - self._before).max()
        if not effect > 0.1:
            raise ValueError(f"{weight} has no effect in {self.architecture}")
        found = self._before
        with suppress(LlamaCppFailed):  # "has incorrect shape": Gemma 4's embeddings of layers
            found = self._logits(self._model, self._lora(weight, a, b))
        if np.abs(found - merged).max() < 0.01 * effect:
            return True
        return False if np.array_equal(found, self._before) else None

    def adds_bias(self, stem: str) -> bool:
        """Whether ``stem``.bias is loaded and seen."""
        weight = self.tensors.get(f"{stem}.weight", self.tensors[EMBEDDING])  # some models have no other head
        noise = _noise(*(weight.shape if weight.ndim == 1 else weight.shape[:-1]))
        return self._is_seen({f"{stem}.bias": noise})

    def reads_head(self) -> bool:
        """Whether output.weight is loaded and seen."""
        return self._is_seen({"output.weight": _noise(*self.tensors[EMBEDDING].shape)})

    def _is_seen(self, changed: Mapping[str, Array]) -> bool:
        with suppress(LlamaCppFailed):  # "wrong number of tensors"
            return not np.array_equal(self._logits(self._with(changed)), self._before)
        return False

    def _logits(self, model: Path, lora: Path | None = None) -> Array:
        logits: Array = self._llama_cpp.logits(model, SEQUENCES, lora)[0]
        return logits

    def _path(self, *names: str) -> Path:
        return Path(self._folder.name) / f"{'-'.join(names)}.gguf"

    def _with(self, changed: Mapping[str, Array]) -> Path:
        """The model with these tensors changed, or new."""
        reader = GGUFReader(self._model)
        writer = GGUFWriter(self._path("with", *changed), self.architecture)
        for key, field in reader.fields.items():
            if not key.startswith("GGUF.") and key != "general.architecture":
                writer.add_key_value(key, field.contents(), *field.types[:2])
        return _written(writer, {**self.tensors, **changed})

    def _lora(self, weight: str, a: Array, b: Array) -> Path:
        if weight == EMBEDDING:  # looked up, not multiplied by: llama.cpp wants A by tokens
            a, b = b, a.T
        writer = GGUFWriter(self._path("lora", weight), self.architecture)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", RANK)
        return _written(writer, {f"{weight}.lora_a": a, f"{weight}.lora_b": b})


def _factors(weight: Array) -> tuple[Array, Array]:
    """lora_A and lora_B of a matrix, of each expert's, or of a vector as a matrix of one row."""
    *experts, n_out, n_in = weight.shape if weight.ndim > 1 else (1, *weight.shape)
    return _noise(*experts, RANK, n_in), _noise(*experts, n_out, RANK)


def _product(a: Array, b: Array) -> Array:
    product: Array = b @ a
    return product[0] if len(product) == 1 else product


def _noise(*shape: int) -> Array:
    return 0.3 * np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


def _written(writer: GGUFWriter, values: Mapping[str, Array]) -> Path:
    for name, array in values.items():
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert writer.path
    return writer.path
