"""Which type each tensor gets, against llama_model_quantize's own choice, over models of real shapes.

The files have a header and no numbers: a hole as large as they would be. llama.cpp's dry run doesn't look at them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pytest
from gguf import GGUFWriter

from converter.planning.file_types import FILE_TYPES
from converter.planning.mixtures import Matrix, Traits, Wanted, types_of
from fixtures.imatrix import write_imatrix
from tests.e2e.llama_quantize import INSTALLED, Asked, llama_types

pytestmark = [
    pytest.mark.llama,
    pytest.mark.skipif(not INSTALLED, reason="needs llama-cpp-python: make .venv/llama-cpp-python compiles it"),
]


class Shape(NamedTuple):
    """A model by its sizes; ``fused`` has one tensor for queries, keys and values."""

    architecture: str
    n_layer: int
    hidden: int
    ffn: int
    n_head: int
    n_head_kv: int
    n_expert: int = 0
    tied: bool = False
    fused: bool = False

    @property
    def traits(self) -> Traits:
        return Traits(self.architecture, self.n_layer, self.n_head, self.n_head_kv, self.n_expert)


SHAPES: Final = {
    "Llama 3.1 8B": Shape("llama", 32, 4096, 14336, 32, 8),
    "Llama 3.1 70B": Shape("llama", 80, 8192, 28672, 64, 8),
    "LLaMA 65B": Shape("llama", 80, 8192, 22016, 64, 64),
    "Qwen2 72B": Shape("qwen2", 80, 8192, 29568, 64, 8),
    "Qwen2.5 0.5B": Shape("qwen2", 24, 896, 4864, 14, 2, tied=True),
    "Mixtral 8x7B": Shape("llama", 32, 4096, 14336, 32, 8, n_expert=8),
    "Qwen3 30B-A3B": Shape("qwen3moe", 48, 2048, 768, 32, 4, n_expert=128),
    "Gemma 3 1B": Shape("gemma3", 26, 1152, 6912, 4, 1, tied=True),
    "Phi-3 mini": Shape("phi3", 32, 3072, 8192, 32, 32, fused=True),
    "rows of no whole blocks": Shape("llama", 7, 80, 208, 5, 5),
}


def tensors(shape: Shape) -> Iterator[Matrix]:
    head_dim = shape.hidden // shape.n_head
    q, kv = head_dim * shape.n_head, head_dim * shape.n_head_kv
    yield Matrix("token_embd.weight", (1000, shape.hidden))
    yield Matrix("output_norm.weight", (shape.hidden,))
    if not shape.tied:
        yield Matrix("output.weight", (1000, shape.hidden))
    experts = (shape.n_expert,) if shape.n_expert else ()
    suffix = "_exps" if experts else ""
    layer = {
        "attn_norm": (shape.hidden,),
        **({"attn_qkv": (q + 2 * kv, shape.hidden)} if shape.fused else {
            "attn_q": (q, shape.hidden), "attn_k": (kv, shape.hidden), "attn_v": (kv, shape.hidden)
        }),
        "attn_output": (shape.hidden, q),
        **({"ffn_gate_inp": (shape.n_expert, shape.hidden)} if experts else {}),
        f"ffn_gate{suffix}": (*experts, shape.ffn, shape.hidden),
        f"ffn_up{suffix}": (*experts, shape.ffn, shape.hidden),
        f"ffn_down{suffix}": (*experts, shape.hidden, shape.ffn),
    }  # fmt: skip
    for i in range(shape.n_layer):
        yield from (Matrix(f"blk.{i}.{stem}.weight", of) for stem, of in layer.items())


def hollow(shape: Shape, path: Path) -> Path:
    writer = GGUFWriter(path, shape.architecture)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(1000)
    writer.add_rope_dimension_count(shape.hidden // shape.n_head)
    writer.add_sliding_window(512)
    if shape.n_expert:
        writer.add_expert_count(shape.n_expert)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(shape.ffn)
    n_bytes = 0
    for matrix in tensors(shape):
        nbytes = 4 * int(np.prod(matrix.shape, dtype=np.int64))
        writer.add_tensor_info(matrix.name, matrix.shape, np.dtype(np.float32), nbytes)
        n_bytes += -(-nbytes // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + n_bytes + 32)
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_types_are_llama_cpps_choice(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    imatrix = write_imatrix(tmp_path / "i.gguf", {"blk.0.attn_q.weight": np.ones((1, 8), np.float32)})
    asked = [Asked(file_type, by) for file_type in FILE_TYPES for by in (None, str(imatrix))]
    found = llama_types(hollow(shape, tmp_path / "hollow.gguf"), *asked)
    for one, theirs in zip(asked, found, strict=True):
        ours = types_of(tensors(shape), shape.traits, Wanted(one.file_type, has_imatrix=bool(one.imatrix)))
        assert {t.name: ours[t.name].name if t.name in ours else "F32" for t in tensors(shape)} == theirs, one
