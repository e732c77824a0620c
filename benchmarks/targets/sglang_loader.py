"""What SGLang's own loader makes of adapters: its config, adapter, manager and memory pool classes, on the CPU.

    python sglang_loader.py JOB.json
        {"source": DIR of sglang's wheel, "base": DIR, "adapters": {NAME: DIR}, "output": FILE.npz}

The server itself needs a GPU. Its classes for LoRA don't: what they import from the rest of SGLang is stood in for here
by one device without parallelism. Written are the deltas that lie in the pool's buffers, from which its kernels
compute, and printed what each adapter was refused with.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

Delta = npt.NDArray[np.float32]
REAL = ("utils", "lora_config", "lora", "eviction_policy", "mem_pool", "lora_manager")
PARALLEL = SimpleNamespace(
    tp_size=1,
    tp_rank=0,
    attn_tp_size=1,
    moe_ep_size=1,
    moe_ep_rank=0,
    moe_tp_size=1,
    moe_tp_rank=0,
    dcp_replicate_q_proj=False,
    pp_group=SimpleNamespace(is_last_rank=True),
)
# Models whose class in sglang/srt/models has an attribute lm_head. Gemma 2's logits come from embed_tokens itself.
WITH_HEAD = ("llama", "mistral", "qwen2", "qwen3")


class _StandIn(ModuleType):
    """A module of SGLang that is none of REAL: every name in it is a class that nothing is an instance of."""

    __path__ = []  # noqa: RUF012  what makes it a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = {
            "get_parallel": lambda: PARALLEL,
            "envs": MagicMock(**{"SGLANG_EXPERIMENTAL_LORA_OPTI.get.return_value": False}),
            "is_pin_memory_available": lambda: False,
            "get_layer_id": _layer_id,
            "unwrap_lora_layer": lambda layer: layer,
        }
        value = known.get(name) or type(name, (), {})
        setattr(self, name, value)
        return value


class _Finder:
    def find_spec(self, name: str, _path: object, _target: object = None) -> Any:
        is_ours = name.startswith("sglang")
        return importlib.util.spec_from_loader(name, self) if is_ours else None  # type: ignore[arg-type]  # no Loader by type

    def create_module(self, spec: Any) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, _module: ModuleType) -> None:
        return


def _layer_id(name: str) -> int | None:  # as in sglang/srt/layers/utils/common.py
    match = re.search(r"layers\.(\d+)\.", name)
    return int(match[1]) if match else None


def loaded_classes(source: Path) -> Mapping[str, ModuleType]:
    """SGLang's modules of REAL, which see each other and stand-ins."""
    sys.meta_path.insert(0, _Finder())
    modules = {}
    for name in REAL:
        full = f"sglang.srt.lora.{name}"
        spec = importlib.util.spec_from_file_location(full, source / "sglang" / "srt" / "lora" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        modules[name] = sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    return modules


class Module(torch.nn.Module):
    """A layer with LoRA, on one device: it takes its factors whole."""

    def slice_lora_a_weights(self, weights: torch.Tensor) -> torch.Tensor:
        return weights

    slice_lora_b_weights = slice_lora_a_weights


class Server:
    """One base, and the steps by which SGLang's manager loads an adapter onto it (lora_manager.py)."""

    def __init__(self, sglang: Mapping[str, ModuleType], base: Path) -> None:
        self.sglang = sglang
        self.config = AutoConfig.from_pretrained(base)
        self.model = torch.nn.Linear(1, 1)
        self.model.config = self.config
        self.linear = {
            "self_attn.qkv_proj": ("q_proj", "k_proj", "v_proj"),
            "self_attn.o_proj": ("o_proj",),
            "mlp.gate_up_proj": ("gate_proj", "up_proj"),
            "mlp.down_proj": ("down_proj",),
        }

    def load(self, directory: Path) -> dict[str, Delta]:
        """The deltas of a served adapter. Raises what SGLang raises."""
        config = self.sglang["lora_config"].LoRAConfig(str(directory), base_vocab_size=self.config.vocab_size)
        manager = SimpleNamespace(
            attn_dp_enabled=False, lora_refs={"a": SimpleNamespace(lora_name="a")}, base_model=self.model, configs={},
            lora_added_tokens_size=None, num_pinned_loras=0, max_loras_per_batch=2,
        )  # fmt: skip
        managers = self.sglang["lora_manager"].LoRAManager
        new = SimpleNamespace(lora_name="b", lora_path=str(directory), pinned=False)
        manager.lora_refs["a"].lora_path = ""
        managers.validate_new_adapter(manager, config, new)
        adapter = self.sglang["lora"].LoRAAdapter("b", config, self.config, None, None)
        adapter.initialize_weights_from_tensors(_tensors(directory))
        manager.configs["b"] = config
        managers.init_lora_shapes(manager)
        return dict(self._deltas(self._pool(manager, adapter), adapter))

    def _pool(self, manager: SimpleNamespace, adapter: Any) -> Any:
        targets = manager.target_modules
        pool = self.sglang["mem_pool"].LoRAMemoryPool(
            base_hf_config=self.config, max_loras_per_batch=1, dtype=torch.float32,
            max_lora_rank=manager.max_lora_rank, target_modules=targets, base_model=self.model,
            eviction_policy="lru", lora_added_tokens_size=manager.lora_added_tokens_size,
        )  # fmt: skip
        modules = [
            {f"layers.{i}.{name}": Module() for name in self.linear if name.split(".")[1] in targets}
            for i in range(self.config.num_hidden_layers)
        ]
        embedding = Module() if "embed_tokens" in targets else None
        head = Module() if "lm_head" in targets and self.config.model_type in WITH_HEAD else None
        pool.load_lora_weight_to_buffer("b", 0, adapter, modules, embedding, head)
        if embedding and self.config.model_type not in WITH_HEAD:
            # Such a model's logits come from embed_tokens, and a wrapped one is called like an embedding: with hidden
            # states for tokens (layers/logits_processor.py, _compute_lm_head).
            torch.nn.functional.embedding(torch.zeros(1, self.config.hidden_size), torch.zeros(2, 2))
        return pool

    def _deltas(self, pool: Any, adapter: Any) -> Iterator[tuple[str, Delta]]:
        r, scaling = adapter.config.r, adapter.scaling
        for name, parts in self.linear.items():
            place, _, buffer = name.partition(".")
            for i in range(self.config.num_hidden_layers if buffer in pool.A_buffer else 0):
                a, b = pool.A_buffer[buffer][i][0], pool.B_buffer[buffer][i][0]
                first = 0
                for j, part in enumerate(parts):
                    rows = self._rows(part)
                    delta = scaling * b[first : first + rows, :r] @ a[j * r : (j + 1) * r]
                    yield f"model.layers.{i}.{place}.{part}", delta.numpy()
                    first += rows
        if adapter.embedding_layers and "embed_tokens" in pool.embedding_A_buffer:
            a, b = pool.embedding_A_buffer["embed_tokens"][0], pool.embedding_B_buffer["embed_tokens"][0]
            yield "model.embed_tokens", (scaling * b[:, :r] @ a[:r]).T.numpy()
        if adapter.embedding_layers and "lm_head" in pool.lm_head_A_buffer:
            a, b = pool.lm_head_A_buffer["lm_head"][0], pool.lm_head_B_buffer["lm_head"][0]
            yield "lm_head", (scaling * b[:, :r] @ a[:r]).numpy()

    def _rows(self, part: str) -> int:
        it = self.config
        heads = {"q_proj": it.num_attention_heads, "k_proj": it.num_key_value_heads, "v_proj": it.num_key_value_heads}
        if part in heads:
            return int(heads[part] * it.head_dim)
        return int(it.intermediate_size if part in {"gate_proj", "up_proj"} else it.hidden_size)


def _tensors(directory: Path) -> dict[str, torch.Tensor]:
    """All safetensors of the directory, which is what SGLang's loader of checkpoints reads."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise RuntimeError(f"Cannot find any model weights with `{directory}`")
    return {key: tensor for file in files for key, tensor in load_file(file).items()}


def main(path: str) -> None:
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    server = Server(loaded_classes(Path(job["source"])), Path(job["base"]))
    arrays: dict[str, Delta] = {}
    refused = {}
    for name, directory in job["adapters"].items():
        try:
            deltas = server.load(Path(directory))
        except Exception as error:  # noqa: BLE001  whatever it is, it is SGLang's answer
            refused[name] = f"{type(error).__name__}: {error}"
        else:
            arrays |= {f"{name}/{module}": delta for module, delta in deltas.items()}
            arrays[f"{name}/"] = np.zeros(0, np.float32)
    np.savez(job["output"], **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one
    print(json.dumps({"version": job["source"].rpartition("-")[2], "refused": refused}))


if __name__ == "__main__":
    main(sys.argv[1])
