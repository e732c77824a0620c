"""Weights a second of CPU that a merge takes: a touched BF16 matrix to F16. `python -m benchmarks.merge_rate [SHAPE]`.

Three ways in one run over one random base with a LoRA of rank 16 on every linear module: the compiled kernels, numpy
alone, and torch's addmm in float32, which rounds twice and is the yardstick. CPU is user + system time of a whole
process, reading, writing and starting included, as Linux accounts for it. The two files have to be the same byte for
byte.

`--matrix` is about one matrix whose bytes are in memory, of which nothing is written: the arithmetic alone, on one
thread, the best of several rounds.

`--sparse` makes a base of holes, which take no disk, and discards what is written: any shape then fits, and the time is
that of reading and arithmetic. Every other run takes 2 bytes a weight for the base, and as many for the output.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import prod
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import numpy as np

from benchmarks.bench import run
from converter.dtypes import F16
from converter.evaluation.compiled import NOTHING, Compiled, compiled
from converter.planning.conversion_plan import PlannedTensor
from converter.read.stored import StoredTensor
from converter.sources import Delta, Merged, StoredRows
from converter.writing.blocks import tasks
from converter.writing.one_blas_thread import one_blas_thread
from fixtures.generated import RANK, adapter_config, write_holes, write_safetensors
from fixtures.memory import run_measured
from fixtures.trained_tokenizers import write_sentencepiece

_VOCAB: Final = 32000


class Shape(NamedTuple):
    """A llama's sizes."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """A layer's linear modules, (out_features, in_features)."""
        kv = self.hidden // self.heads * self.kv_heads
        return {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (kv, self.hidden),
            "self_attn.v_proj": (kv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.inner, self.hidden),
            "mlp.up_proj": (self.inner, self.hidden),
            "mlp.down_proj": (self.hidden, self.inner),
        }

    @property
    def n_touched(self) -> int:
        """Weights that the adapter changes."""
        return self.layers * sum(map(prod, self.linear.values()))


# Of TinyLlama, Gemma 2B, Llama 2 7B and Llama 2 70B.
SHAPES: Final = {
    "1b": Shape(2048, 5632, 22, 32, 4),
    "2b": Shape(2048, 16384, 18, 8, 1),
    "7b": Shape(4096, 11008, 32, 32, 32),
    "70b": Shape(8192, 28672, 80, 64, 8),
}

# --- What is merged ---------------------------------------------------------------------------------------------------


def make_base(directory: Path, shape: Shape, *, sparse: bool) -> None:
    """Write a tied llama of random numbers in BF16, or of holes."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(_config(shape)))
    write_sentencepiece(directory)
    random = np.random.default_rng(7)
    pool = _bfloat16(random.standard_normal(2 * max(map(prod, shape.linear.values())), np.float32) * np.float32(0.02))
    index: dict[str, str] = {}
    for number, shapes in enumerate(_shards(shape)):
        path = directory / f"model-{number:05}.safetensors"
        if sparse:
            write_holes(path, {name: ("BF16", size) for name, size in shapes.items()})
        else:
            write_safetensors(path, {name: ("BF16", size, _drawn(pool, size, random)) for name, size in shapes.items()})
        index |= dict.fromkeys(shapes, path.name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": shape.hidden, "hidden_act": "silu",
        "intermediate_size": shape.inner, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "vocab_size": _VOCAB, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


def _shards(shape: Shape) -> Iterator[dict[str, tuple[int, ...]]]:
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        norms = ("input_layernorm", "post_attention_layernorm")
        yield {f"{prefix}{name}.weight": size for name, size in shape.linear.items()} | {
            f"{prefix}{norm}.weight": (shape.hidden,) for norm in norms
        }
    yield {"model.embed_tokens.weight": (_VOCAB, shape.hidden), "model.norm.weight": (shape.hidden,)}


def _bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def _drawn(pool: np.ndarray, size: tuple[int, ...], random: np.random.Generator) -> bytes:
    begin = int(random.integers(len(pool) - min(prod(size), len(pool)) + 1))
    return np.resize(pool[begin : begin + prod(size)], prod(size)).tobytes()


def make_adapter(directory: Path, shape: Shape) -> None:
    """Write a LoRA of random numbers on every linear module."""
    directory.mkdir()
    names = [name.rpartition(".")[2] for name in shape.linear]
    (directory / "adapter_config.json").write_text(json.dumps(adapter_config(names, base_model_name_or_path="base")))
    random = np.random.default_rng(8)
    tensors = {}
    for layer in range(shape.layers):
        for module, (n_out, n_in) in shape.linear.items():
            for factor, size in (("lora_A", (RANK, n_in)), ("lora_B", (n_out, RANK))):
                values = random.standard_normal(size, np.float32) * np.float32(0.01)
                key = f"base_model.model.model.layers.{layer}.{module}.{factor}.weight"
                tensors[key] = ("F32", size, values.tobytes())
    write_safetensors(directory / "adapter_model.safetensors", tensors, {"format": "pt"})


# --- Who merges -------------------------------------------------------------------------------------------------------

_CONVERT: Final = "from converter.cli.to_gguf import main; main()"
_PLAINLY: Final = "import os; os.environ['ADAPTER_TO_GGUF_KERNELS'] = '0'; "
_DISCARD: Final = """
import os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as adapter-to-gguf does
from converter.library import Deployment, plan, read_adapter, read_base
from converter.writing.gguf_file import write_gguf
from converter.writing.one_blas_thread import one_blas_thread

class Nowhere:
    def write(self, data):
        return memoryview(data).nbytes

deployment = Deployment("model", outtype="f16")
with plan(read_adapter(sys.argv[1]), read_base(sys.argv[3]), deployment) as planned, one_blas_thread():
    write_gguf(planned.files[0], Nowhere(), lambda n: None)
"""
# A yardstick: as tight as torch allows, and not what the tool promises (float32 sums, rounded twice).
_TORCH: Final = """
import sys, json
from pathlib import Path
import torch
from safetensors import safe_open
torch.set_num_threads(1)
adapter, base, output = map(Path, sys.argv[1:])
with open(output, "wb") as out, safe_open(adapter / "adapter_model.safetensors", "pt") as factors:
    for shard in sorted(base.glob("*.safetensors")):
        with safe_open(shard, "pt") as weights:
            for name in weights.keys():
                if ".layers." not in name or "norm" in name:
                    continue
                key = "base_model.model." + name.removesuffix("weight")
                a, b = (factors.get_tensor(f"{key}lora_{x}.weight") for x in "AB")
                b *= 32 / 16
                rows = weights.get_slice(name)
                for begin in range(0, len(b), 64):
                    merged = torch.addmm(rows[begin : begin + 64].float(), b[begin : begin + 64], a)
                    out.write(merged.half().numpy().data)
"""


def main(arguments: Sequence[str]) -> int:
    """Measure, and say so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", nargs="?", choices=SHAPES, default="2b")
    parser.add_argument("--matrix", action="store_true", help="one matrix in memory")
    parser.add_argument("--layers", type=int, help="of that many layers alone")
    parser.add_argument("--sparse", action="store_true", help="a base of holes, and nothing is written")
    options = parser.parse_args(arguments)
    if options.matrix:
        return _matrix()
    shape = SHAPES[options.shape]
    shape = shape._replace(layers=options.layers or shape.layers)
    with TemporaryDirectory(prefix="bench-", dir=".") as scratch:
        base, adapter = Path(scratch, "base"), Path(scratch, "adapter")
        # In a process of its own: Linux counts a parent's memory at the fork as the child's.
        with ProcessPoolExecutor(1, get_context("spawn")) as maker:
            maker.submit(make_base, base, shape, sparse=options.sparse).result()
            maker.submit(make_adapter, adapter, shape).result()
        print(f"{options.shape} shape, {shape.layers} layers, {shape.n_touched / 1e6:,.0f} million weights touched")
        return _sparse(adapter, base, shape) if options.sparse else _written(adapter, base, shape, Path(scratch))


def _written(adapter: Path, base: Path, shape: Shape, scratch: Path) -> int:
    output = scratch / "model.gguf"
    options: list[Path | str] = [adapter, "--base", base, "--to", "model", "--outtype", "f16", "-o", output]
    digests = set()
    for name, program in (("kernels", _CONVERT), ("numpy", _PLAINLY + _CONVERT)):
        start = time.perf_counter()
        cost = run([sys.executable, "-c", program, *options], 0)
        _say(name, shape, cost.cpu, cost.memory, time.perf_counter() - start)
        digests.add(_digest(output))
        output.unlink()
    cost = run([sys.executable, "-c", _TORCH, adapter, base, output], 0)
    _say("torch, float32, one thread", shape, cost.cpu, cost.memory)
    if len(digests) != 1:
        print("The two files differ.")
    return len(digests) - 1


def _sparse(adapter: Path, base: Path, shape: Shape) -> int:
    start, before = time.perf_counter(), sum(os.times()[2:4])
    options = [str(adapter), "--base", str(base)]
    done, peak = run_measured([sys.executable, "-c", _DISCARD, *options], os.environ)
    print(done.stderr, end="")
    cpu = sum(os.times()[2:4]) - before
    _say("kernels, nothing written", shape, cpu, peak.total / 1e6, time.perf_counter() - start)
    return done.returncode


# --- One matrix -------------------------------------------------------------------------------------------------------


def _matrix() -> int:
    n_rows, n_columns = 16384, 2048
    random = np.random.default_rng(9)
    with TemporaryDirectory(prefix="bench-") as scratch:
        path = Path(scratch, "tensors")
        w = _bfloat16(random.standard_normal((n_rows, n_columns), np.float32) * np.float32(0.02))
        b, a = (
            random.standard_normal(size, np.float32) * np.float32(0.01) for size in ((n_rows, RANK), (RANK, n_columns))
        )
        path.write_bytes(w.tobytes() + b.tobytes() + a.tobytes())
        stored = [
            StoredTensor(path, offset, values.nbytes, values.shape, dtype)
            for offset, values, dtype in ((0, w, "BF16"), (w.nbytes, b, "F32"), (w.nbytes + b.nbytes, a, "F32"))
        ]
        base, left, right = (StoredRows("", tensor) for tensor in stored)
        tensor = PlannedTensor("w", w.shape, F16, Merged(base, (Delta(left, right, 2.0),)))
        for name, fast in (("kernels", compiled()), ("numpy", NOTHING)):
            if name == "numpy" or fast.merging:
                _say_best(name, w.size, partial(_made, tensor, fast))
        _say_best("torch, float32", w.size, partial(_torch, w, b, a))
    return 0


def _made(tensor: PlannedTensor, fast: Compiled) -> None:
    with one_blas_thread():
        for task in tasks(tensor, fast=fast):
            task()


def _torch(w: np.ndarray, b: np.ndarray, a: np.ndarray) -> None:
    import torch

    torch.set_num_threads(1)
    base, left, right = torch.from_numpy(w).view(torch.bfloat16), torch.from_numpy(b) * 2.0, torch.from_numpy(a)
    for begin in range(0, len(w), 64):
        torch.addmm(base[begin : begin + 64].float(), left[begin : begin + 64], right).half()


def _say_best(name: str, n: int, merge: Callable[[], None]) -> None:
    merge()
    seconds = []
    for _ in range(10):
        start = time.process_time()
        merge()
        seconds.append(time.process_time() - start)
    best, middle = (n / spent / 1e6 for spent in (min(seconds), median(seconds)))
    print(f"{name:<28} {best:5.0f} million weights a second of CPU (median {middle:.0f})")


def _say(name: str, shape: Shape, cpu: float, memory: float, wall: float | None = None) -> None:
    rate = shape.n_touched / cpu / 1e6
    seconds = f", {wall:.1f} s" if wall else ""
    print(f"{name:<28} {rate:5.0f} million weights a second of CPU ({cpu:.1f} s of CPU{seconds}), {memory:,.0f} MB")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
