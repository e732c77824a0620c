"""adapter-verify of a model of 7B's shape: how much memory, how long. `python -m benchmarks.verify_7b DIRECTORY`.

A random llama in BF16 with an untied head (hidden 4096, 32 layers, 14 GB of disk), a LoRA on every linear module, and
the merged GGUF (14 GB more) are made in DIRECTORY once. Weights come out of one pool of random numbers, at random
offsets: drawing 7 billion takes longer than proving them.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from fixtures.memory import run_measured
from fixtures.trained_tokenizers import write_sentencepiece

_HIDDEN, _INNER, _LAYERS, _VOCAB, _RANK = 4096, 11008, 32, 32000, 8
_LINEAR = {
    "self_attn.q_proj": (_HIDDEN, _HIDDEN),
    "self_attn.k_proj": (_HIDDEN, _HIDDEN),
    "self_attn.v_proj": (_HIDDEN, _HIDDEN),
    "self_attn.o_proj": (_HIDDEN, _HIDDEN),
    "mlp.gate_proj": (_INNER, _HIDDEN),
    "mlp.up_proj": (_INNER, _HIDDEN),
    "mlp.down_proj": (_HIDDEN, _INNER),
}
_SEQUENCES = "1 200 30 4000 17 9 11 23 500 77 8 31999\n5 6 7 8 900 1000 1100 12\n"


class _Pool:
    """Random numbers at random offsets of one pool."""

    def __init__(self) -> None:
        torch.manual_seed(20)
        self._values = torch.randn(_VOCAB * _HIDDEN + 100_003)

    def draw(self, *shape: int, scale: float) -> torch.Tensor:
        n, begin = int(torch.tensor(shape).prod()), int(torch.randint(100_000, ()))
        return (self._values[begin : begin + n] * scale).reshape(shape)


def _make_base(directory: Path, pool: _Pool) -> None:
    config = LlamaConfig(
        vocab_size=_VOCAB,
        hidden_size=_HIDDEN,
        intermediate_size=_INNER,
        num_hidden_layers=_LAYERS,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(directory)
    index: dict[str, str] = {}
    for number, tensors in enumerate(_shards(pool)):
        name = f"model-{number:05}.safetensors"
        save_file(
            {key: values.to(torch.bfloat16) for key, values in tensors.items()}, directory / name, {"format": "pt"}
        )
        index |= dict.fromkeys(tensors, name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def _shards(pool: _Pool) -> Iterator[dict[str, torch.Tensor]]:
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}."
        shard = {f"{prefix}{name}.weight": pool.draw(*shape, scale=0.02) for name, shape in _LINEAR.items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        yield shard | {f"{prefix}{norm}.weight": torch.ones(_HIDDEN) for norm in norms}
    ends = {f"{name}.weight": pool.draw(_VOCAB, _HIDDEN, scale=0.02) for name in ("model.embed_tokens", "lm_head")}
    yield ends | {"model.norm.weight": torch.ones(_HIDDEN)}


def _make_adapter(directory: Path, pool: _Pool) -> None:
    directory.mkdir()
    names = [name.rpartition(".")[2] for name in _LINEAR]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": _RANK, "lora_alpha": 16, "target_modules": names}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(_LAYERS):
        for name, (n_out, n_in) in _LINEAR.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"] = pool.draw(_RANK, n_in, scale=n_in**-0.5)
            tensors[f"{key}.lora_B.weight"] = pool.draw(n_out, _RANK, scale=0.02)
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})


def _run(command: str, *arguments: object) -> None:
    start = time.perf_counter()
    program = [sys.executable, "-c", f"from converter.cli.{command} import main; main()", *map(str, arguments)]
    done, peak = run_measured(program, os.environ)
    seconds = time.perf_counter() - start
    print(done.stdout, done.stderr, sep="", end="")
    print(
        f"{command}: {seconds:.0f} s, peak {peak.total / 1e6:,.0f} MB, of it anonymous {peak.anonymous / 1e6:,.0f} MB"
    )
    if done.returncode:
        sys.exit(done.returncode)


def main(directory: Path) -> None:
    """Make what is not there, and verify it."""
    base, adapter, model, tokens = (directory / name for name in ("base", "adapter", "model.gguf", "tokens.txt"))
    if not base.exists():
        pool = _Pool()
        _make_base(base, pool)
        write_sentencepiece(base)
        _make_adapter(adapter, pool)
        tokens.write_text(_SEQUENCES)
    if not model.exists():
        _run("to_gguf", adapter, "--base", base, "--to", "model", "-o", model)
    _run("verify", adapter, "--base", base, "--model", model, "--tokens", tokens)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
