"""A model of an architecture that nobody wrote a table for: a checkpoint, the GGUF that was made of it, an adapter."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.untabled import with_checkpoint
from fixtures.generated import Tensor, adapter_config, write_safetensors

Values = npt.NDArray[np.float32]
HIDDEN, HEADS, N_LAYER, VOCAB = 64, 4, 2, 40
Rewrite = Callable[[Values], Values]


def permuted(values: Values) -> Values:
    """LlamaModel.permute of llama.cpp's converter."""
    return values.reshape(HEADS, 2, -1, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)


@dataclass
class Nobodys:
    """What is written: ``checkpoint`` by module, ``gguf`` by tensor; tests change them first."""

    directory: Path
    checkpoint: dict[str, Values] = field(default_factory=dict)
    gguf: dict[str, Values] = field(default_factory=dict)
    outtype: str = "F32"
    touched: tuple[str, ...] = ()  # all of the checkpoint's matrices in layers, where it is empty
    kv: Mapping[str, int] = field(default_factory=dict)

    def add(self, module: str, tensor: str, *shape: int, rewrite: Rewrite = np.array) -> None:
        """A matrix of each layer, and what becomes of it."""
        for layer in range(N_LAYER):
            rng = np.random.default_rng([layer, len(module), len(tensor), *shape])
            values = rng.normal(0, 0.05, shape).astype(np.float32)
            self.checkpoint[f"model.layers.{layer}.{module}"] = values
            self.gguf[f"blk.{layer}.{tensor}.weight"] = np.ascontiguousarray(rewrite(values))

    def base(self) -> BaseModel:
        self.directory.mkdir(exist_ok=True)
        tensors = {f"{name}.weight": _stored(values) for name, values in self.checkpoint.items()}
        tensors["model.embed_tokens.weight"] = _stored(embedding())
        write_safetensors(self.directory / "model.safetensors", tensors, {"format": "pt"})
        config = {"model_type": "nobodys", "hidden_size": HIDDEN, "tie_word_embeddings": True}
        (self.directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return with_checkpoint(read_base_model(self._written()), self.directory)

    def _written(self) -> Path:
        path = self.directory / "base.gguf"
        writer = GGUFWriter(path, "nobodys")
        writer.add_block_count(N_LAYER)
        writer.add_embedding_length(HIDDEN)
        writer.add_tensor("token_embd.weight", embedding())
        for name, values in self.gguf.items():
            of = GGMLQuantizationType[self.outtype if values.ndim > 1 else "F32"]
            writer.add_tensor(name, quantize(values, of), raw_dtype=of)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def adapter(self, seed: int = 0) -> Adapter:
        """A LoRA on what is ``touched``."""
        modules = self.touched or tuple(name for name, values in self.checkpoint.items() if values.ndim == 2)
        rng = np.random.default_rng(seed)
        tensors: dict[str, Tensor] = {}
        for module in modules:
            n_out, n_in = self.checkpoint[module].shape
            for factor, shape in (("A", (2, n_in)), ("B", (n_out, 2))):
                values = rng.normal(0, 0.1, shape).astype(np.float32)
                tensors[f"base_model.model.{module}.lora_{factor}.weight"] = _stored(values)
        directory = self.directory / f"adapter-{seed}"
        directory.mkdir(parents=True, exist_ok=True)
        names = sorted({module.rpartition(".")[2] for module in modules})
        config = adapter_config(names, r=2, base_model_name_or_path="me/nobodys")
        (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        write_safetensors(directory / "adapter_model.safetensors", tensors, {"format": "pt"})
        return read_adapter(directory)


def embedding() -> Values:
    return np.random.default_rng(7).normal(0, 0.3, (VOCAB, HIDDEN)).astype(np.float32)


def _stored(values: Values) -> Tensor:
    return "F32", values.shape, np.ascontiguousarray(values).tobytes()
