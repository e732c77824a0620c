"""A good adapter of a tiny llama, to be spoilt in one way per test, and the bases it is judged beside.

Sizes are such that no two dimensions agree by accident.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

from converter.checking import check_adapter
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.derive.untabled import with_checkpoint
from converter.diagnostics import EVERY, Deployment, Kind, Limits, Report
from converter.targets.tables import wanted
from fixtures.generated import Tensor, adapter_config, write_safetensors

RANK = 4
N_LAYER, N_HEAD, N_HEAD_KV, HEAD_DIM = 2, 4, 2, 16
HIDDEN, FFN, VOCAB = 32, 96, 48
SHAPES = {  # (n_out, n_in)
    "self_attn.q_proj": (N_HEAD * HEAD_DIM, HIDDEN),
    "self_attn.v_proj": (N_HEAD_KV * HEAD_DIM, HIDDEN),
    "mlp.down_proj": (HIDDEN, FFN),
}
PREFIX = "base_model.model"
HEAD, EMBEDDING = f"{PREFIX}.lm_head", f"{PREFIX}.model.embed_tokens"
UP = f"{PREFIX}.model.layers.1.mlp.down_proj"


def tensor(*shape: int, seed: int = 0, dtype: str = "F32") -> Tensor:
    """Seeded numbers, none of them zero."""
    values = np.random.default_rng(seed).uniform(0.1, 1.0, shape).astype({"F32": "<f4", "F16": "<f2"}[dtype])
    return dtype, shape, values.tobytes()


def zeros(*shape: int) -> Tensor:
    return "F32", shape, np.zeros(shape, "<f4").tobytes()


def lora(module: str, n_out: int, n_in: int, rank: int = RANK) -> dict[str, Tensor]:
    return {
        f"{module}.lora_A.weight": tensor(rank, n_in, seed=len(module)),
        f"{module}.lora_B.weight": tensor(n_out, rank, seed=n_out),
    }


def head_lora() -> dict[str, Tensor]:
    return lora(HEAD, VOCAB, HIDDEN)


def embedding_lora() -> dict[str, Tensor]:
    """The factors of embed_tokens that make a tied pair with `head_lora()`."""
    head = head_lora()
    a, b = head[f"{HEAD}.lora_B.weight"], head[f"{HEAD}.lora_A.weight"]
    return {f"{EMBEDDING}.lora_embedding_A": transposed(a), f"{EMBEDDING}.lora_embedding_B": transposed(b)}


def transposed(matrix: Tensor) -> Tensor:
    dtype, shape, data = matrix
    return dtype, shape[::-1], np.frombuffer(data, "<f4").reshape(shape).T.tobytes()


def base_embedding() -> Tensor:
    """The embedding of every base here, which is the head of a tied one."""
    return tensor(VOCAB, HIDDEN, seed=99)


TARGETS = ["down_proj", "q_proj", "v_proj"]


def all_linear() -> dict[str, Tensor]:
    modules = {f"{PREFIX}.model.layers.{i}.{name}": shape for i in range(N_LAYER) for name, shape in SHAPES.items()}
    return {key: value for module, shape in modules.items() for key, value in lora(module, *shape).items()}


@dataclass
class Specimen:
    """An adapter about to be written, and what it is judged beside."""

    directory: Path
    base: Path | None
    config: dict[str, object] = field(
        default_factory=lambda: adapter_config(list(TARGETS), r=RANK, base_model_name_or_path="me/tiny")
    )
    tensors: dict[str, Tensor] = field(default_factory=all_linear, repr=False)  # long, and said of every failure
    metadata: dict[str, str] | None = field(default_factory=lambda: {"format": "pt"})
    initial: Path | None = None  # what --initial-adapter would give
    limits: Limits | None = None  # a policy's
    base_is_named: bool = False  # by the adapter
    targets: tuple[str, ...] = ()  # what --target would give
    checkpoint: Path | None = None  # what --checkpoint would give
    deployment: Deployment = field(default_factory=Deployment)

    @property
    def weights(self) -> Path:
        return self.directory / "adapter_model.safetensors"

    @property
    def config_path(self) -> Path:
        return self.directory / "adapter_config.json"

    @property
    def index(self) -> Path:
        return self.directory / "adapter_model.safetensors.index.json"

    def write(self) -> None:
        """Write it. Where the test says nothing of target_modules, they name what the file has, as PEFT's do."""
        config = dict(self.config)
        if config.get("target_modules") == TARGETS:
            modules = {key.partition(".lora_")[0].rpartition(".")[2] for key in self.tensors if ".lora_" in key}
            config["target_modules"] = sorted({*TARGETS, *modules})
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(json.dumps(config), encoding="utf-8")
        write_safetensors(self.weights, self.tensors, self.metadata)

    def write_header(self, entries: str, n_bytes: int) -> None:
        """Write the weights with a header of one's own, and zeros for data."""
        self.write()
        header = entries.encode()
        self.weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(n_bytes))

    def write_shards(self, names: Iterable[str] = ("part-1.safetensors", "part-2.safetensors")) -> dict[str, str]:
        """Write the weights as shards and return the index, which is written too."""
        self.write()
        self.weights.unlink()
        index: dict[str, str] = {}
        shards = tuple(names)
        for i, name in enumerate(shards):
            part = {key: value for n, (key, value) in enumerate(self.tensors.items()) if n // 2 % len(shards) == i}
            write_safetensors(self.directory / name, part)
            index |= dict.fromkeys(part, name)
        self.write_index(index)
        return index

    def write_index(self, weight_map: object) -> None:
        self.index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")

    def report(self, deployment: Deployment | None = None, *, values: bool = True) -> Report:
        base = replace(read_base_model(self.base), named_by_adapter=self.base_is_named) if self.base else None
        base = with_checkpoint(base, self.checkpoint) if base and self.checkpoint else base
        adapter = read_adapter(self.directory)
        if self.initial:
            adapter = replace(adapter, initial=read_adapter(self.initial))
        targets = tuple(map(wanted, self.targets))
        asked = deployment or self.deployment
        return check_adapter(adapter, base, asked, values=values, limits=self.limits, targets=targets)


def codes(report: Report) -> list[str]:
    """The code of every finding, each once, whatever it blocks."""
    return sorted({finding.code for finding in report.findings})


def open_for(report: Report) -> set[Kind]:
    """The deployments that nothing forbids."""
    return {kind for kind in EVERY if not report.blockers(kind)}


def write_gguf(
    path: Path,
    architecture: str = "llama",
    *,
    tied: bool = True,
    outtype: str = "F32",
    name: str | None = None,
    seed: int | None = None,
    head: float = 0.5,
    head_dim: int = HEAD_DIM,
    keys: Mapping[str, int] | None = None,
    more: tuple[tuple[str, tuple[int, int]], ...] = (),
) -> Path:
    """Write a base with every matrix that `all_linear()` touches, of ones unless a seed makes them random.

    ``keys`` are more of its metadata, ``more`` other matrices of each layer.

    The embedding is always the same; an untied head is `head` away from it.
    """
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> npt.NDArray[np.float32]:
        values = rng.lognormal(0, 0.5, (shape[0],) + (1,) * (len(shape) - 1)) * np.ones(shape)
        return np.ones(shape, np.float32) if seed is None else values.astype(np.float32)

    writer = GGUFWriter(path, architecture)
    if name:
        writer.add_name(name)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_key_length(head_dim)
    for key, number in (keys or {}).items():
        writer.add_uint32(f"{architecture}.{key}", number)
    quantized = GGMLQuantizationType[outtype]
    embedding = np.frombuffer(base_embedding()[2], "<f4").reshape(VOCAB, HIDDEN)
    writer.add_tensor("token_embd.weight", quants.quantize(embedding, quantized), raw_dtype=quantized)
    if not tied:
        writer.add_tensor("output.weight", embedding + np.float32(head))
    writer.add_tensor("output_norm.weight", weight(HIDDEN))
    for i in range(N_LAYER):
        heads = (("attn_q", (N_HEAD * head_dim, HIDDEN)), ("attn_v", (N_HEAD_KV * head_dim, HIDDEN)))
        for tensor_name, shape in (*heads, ("ffn_down", (HIDDEN, FFN)), *more):
            writer.add_tensor(f"blk.{i}.{tensor_name}.weight", weight(*shape))
        writer.add_tensor(f"blk.{i}.attn_norm.weight", weight(HIDDEN))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_checkpoint(directory: Path, gguf: Path, **tensors: str) -> Path:
    """Write the directory that a GGUF of `write_gguf` could have been made from; ``tensors`` has others in a place."""
    names = {"attn_q": "self_attn.q_proj", "attn_v": "self_attn.v_proj", "ffn_down": "mlp.down_proj"}
    found = {t.name: np.array(t.data) for t in GGUFReader(gguf).tensors}
    weights: dict[str, Tensor] = {}
    for i in range(N_LAYER):
        for own, module in names.items():
            values = found[f"blk.{i}.{tensors.get(own, own)}.weight"]
            weights[f"model.layers.{i}.{module}.weight"] = ("F32", values.shape, values.tobytes())
    values = found["token_embd.weight"]
    weights["model.embed_tokens.weight"] = ("F32", values.shape, values.tobytes())
    write_huggingface(directory, model_type="nobodys")
    write_safetensors(directory / "model.safetensors", weights)
    return directory


def write_huggingface(directory: Path, **changes: object) -> Path:
    """Write a base that is config.json alone."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": N_LAYER,
        "num_attention_heads": N_HEAD,
        "num_key_value_heads": N_HEAD_KV,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCAB,
        "tie_word_embeddings": True,
        **changes,
    }
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory
