"""What it costs to untie a model of Gemma-2B's size: CPU per output byte and peak memory, beside ``cp``.

The base is random, BF16, 5 GB in six split files; the adapter is all-linear and lm_head, rank 16. PEFT's merge and
convert_hf_to_gguf.py together take 54 s of CPU for 887 MB of output, measured on Gemma 3 270M; the limit is a fifth of
that for each byte. ``python -m benchmarks.hosts [DIRECTORY]``; 18 GB of disk.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from benchmarks.bench import BIN, run
from converter.verify.llama_cpp import LlamaCpp
from fixtures.generated import GEMMA_2B, GEMMA_2B_LAYER, write_gemma_2b_head_adapter

HOSTS = ("gemma3", "spark2_5", "wide")
CPU_PER_GB = 54 / 0.887 / 5
MEMORY_MB = 1500.0
N_FILES = 6
N_LAYER, HIDDEN, N_VOCAB = 18, 2048, 256000
CHUNK = 1 << 22  # values

TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
    with TemporaryDirectory(prefix="hosts-", dir=root) as scratch:
        base, adapter = _prepared(Path(scratch))
        failed = [host for host in HOSTS if not _fits(host, base, adapter, Path(scratch) / "model.gguf")]
    return int(bool(failed))


def _prepared(scratch: Path) -> tuple[Path, Path]:
    adapter = scratch / "adapter"
    adapter.mkdir()
    write_gemma_2b_head_adapter(adapter)
    return write_base(scratch), adapter


def _fits(host: str, base: Path, adapter: Path, output: Path) -> bool:
    untie: list[Path | str] = [BIN / "adapter-to-gguf", adapter, "--base", base, "--untie", "--host", host]
    cost = run([*untie, "-o", output], 0)
    copy = run([shutil.which("cp") or "cp", output, output.with_suffix(".copy")], 0)
    gigabytes = output.stat().st_size / 1e9
    runs = _decodes(output)
    print(
        f"{host:<9} {gigabytes:.2f} GB  CPU {cost.cpu:.1f} s, {cost.cpu / gigabytes:.2f} s/GB of {CPU_PER_GB:.1f}  "
        f"{cost.memory:.0f} MB of {MEMORY_MB:.0f}  cp {copy.cpu:.1f} s  {'decodes' if runs else 'DOES NOT DECODE'}",
        flush=True,
    )
    output.unlink()
    output.with_suffix(".copy").unlink()
    return runs and cost.cpu / gigabytes <= CPU_PER_GB and cost.memory <= MEMORY_MB


def _decodes(model: Path) -> bool:
    """Whether llama.cpp loads the model and its logits are numbers."""
    with LlamaCpp() as llama:
        (logits,) = llama.logits(model, [[2, 1000, 2000, 3000]])
    return logits.shape == (4, N_VOCAB) and bool(np.isfinite(logits).all())


def write_base(directory: Path) -> Path:
    """Write the base, chunk by chunk; return its first file."""
    shapes = dict(_shapes())
    names = list(shapes)
    step = -(-len(names) // N_FILES)
    noise = np.random.default_rng(seed=1).standard_normal(CHUNK, dtype=np.float32)
    for no in range(N_FILES):
        part = {name: shapes[name] for name in names[no * step : (no + 1) * step]}
        path = directory / f"base-{no + 1:05}-of-{N_FILES:05}.gguf"
        _write_part(path, no, part, len(names), noise)
    return directory / f"base-00001-of-{N_FILES:05}.gguf"


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (N_VOCAB, HIDDEN)
    for layer in range(N_LAYER):
        for module, (n_in, n_out) in GEMMA_2B_LAYER.items():
            yield f"blk.{layer}.{TENSORS[module]}.weight", (n_out, n_in)
        for norm in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{norm}.weight", (HIDDEN,)
    yield "output_norm.weight", (HIDDEN,)


def _write_part(path: Path, no: int, shapes: dict[str, tuple[int, ...]], n_tensors: int, noise: np.ndarray) -> None:
    writer = GGUFWriter(path, "gemma")
    if no == 0:
        _add_metadata(writer)
    writer.add_uint16("split.no", no)
    writer.add_uint16("split.count", N_FILES)
    writer.add_int32("split.tensors.count", n_tensors)
    for name, shape in shapes.items():
        dtype = GGMLQuantizationType.BF16 if len(shape) > 1 else GGMLQuantizationType.F32
        nbytes = int(np.prod(shape)) * (2 if len(shape) > 1 else 4)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), nbytes, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout
    for i, shape in enumerate(shapes.values()):
        out = writer.fout[0]
        out.write(bytes(-out.tell() % 32))
        for values in _values(shape, noise, i):
            out.write(values.tobytes())
    writer.close()


def _values(shape: tuple[int, ...], noise: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Normal values in chunks: the noise, from another place for each tensor."""
    if len(shape) == 1:
        yield np.ones(shape, np.float32)
        return
    scaled = np.roll(noise, seed * 7919) * np.float32(shape[1] ** -0.5)
    bfloat16 = (scaled.view(np.uint32) >> 16).astype(np.uint16)
    left = int(np.prod(shape))
    while left:
        yield bfloat16[:left]
        left -= min(left, CHUNK)


def _add_metadata(writer: GGUFWriter) -> None:
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(N_VOCAB)
    writer.add_context_length(int(str(GEMMA_2B["max_position_embeddings"])))
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(int(str(GEMMA_2B["intermediate_size"])))
    writer.add_head_count(int(str(GEMMA_2B["num_attention_heads"])))
    writer.add_head_count_kv(int(str(GEMMA_2B["num_key_value_heads"])))
    writer.add_key_length(int(str(GEMMA_2B["head_dim"])))
    writer.add_value_length(int(str(GEMMA_2B["head_dim"])))
    writer.add_layer_norm_rms_eps(float(str(GEMMA_2B["rms_norm_eps"])))


if __name__ == "__main__":
    sys.exit(main())
