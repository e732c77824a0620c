"""Nemotron-H as its authors' own code has it: other names of modules, experts one by one, layers as letters."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.torch import load_file, save_file

from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Deployment, Kind
from converter.verification.llama_cpp import LlamaCpp
from converter.verification.verification import Case, DeployedLora, prove
from fixtures.measure import kl, tensors
from fixtures.more_adapters import SEQUENCES, more_adapter, more_logits
from fixtures.more_models import MoreModel

if TYPE_CHECKING:
    import torch

pytestmark = pytest.mark.llama

Array = npt.NDArray[np.float32]
DENSE, WITH_EXPERTS = MoreModel("nemotron_h"), MoreModel("nemotron_h_moe")


@pytest.mark.parametrize("model", [DENSE, WITH_EXPERTS], ids=str)
def test_an_adapter_of_the_authors_own_code_is_the_same(model: MoreModel, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """Whose model is a ``backbone``; it is proven over transformers' model, too."""
    adapter = tmp_path / "adapter"
    shutil.copytree(more_adapter(model), adapter)
    factors = load_file(adapter / "adapter_model.safetensors")
    renamed = {key.replace(".model.layers.", ".backbone.layers."): values for key, values in factors.items()}
    assert not renamed.keys() & factors.keys()
    save_file(renamed, adapter / "adapter_model.safetensors", {"format": "pt"})
    base = read_base_model(model.gguf)
    files: list[Path] = []
    for path in (adapter, more_adapter(model)):
        (written,) = write(plan(read_adapter(path), base, Deployment("lora")), tmp_path / f"{len(files)}.gguf")
        files.append(written.path)
    ours, theirs = map(tensors, files)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)
    case = Case(read_adapter(adapter), model.hf, DeployedLora(files[0], model.gguf), SEQUENCES)
    assert not prove(case, llama_cpp).tensors.faults


@pytest.mark.parametrize("to", ["lora", "model"])
def test_loras_on_single_experts_are_served_exactly(to: Kind, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    adapter = _one_by_one(more_adapter(WITH_EXPERTS, on_experts=True), tmp_path / "adapter")
    deployment = Deployment("lora") if to == "lora" else Deployment("model", outtype="f32")
    (written,) = write(plan(read_adapter(adapter), read_base_model(WITH_EXPERTS.gguf), deployment), tmp_path / "out")
    files: dict[str, Any] = {"lora": written.path} if to == "lora" else {}
    served = np.stack(llama_cpp.logits(WITH_EXPERTS.gguf if files else written.path, SEQUENCES, **files))
    without, peft = more_logits(WITH_EXPERTS, on_experts=True)
    assert kl(peft, without) > 1e-3
    assert kl(peft, served) / kl(peft, without) < WITH_EXPERTS.kind.ratio


def _one_by_one(source: Path, target: Path) -> Path:
    """The LoRA on all experts as LoRAs on linear layers (ParamWrapper in peft/tuners/lora/layer.py has their order)."""
    shutil.copytree(source, target)
    n_expert = WITH_EXPERTS.kind.fields["n_routed_experts"]
    kept: dict[str, torch.Tensor] = {}
    for key, values in load_file(target / "adapter_model.safetensors").items():
        layer, experts, factor = key.partition(".experts.")
        if not experts:
            kept[key] = values
            continue
        projection = "up_proj" if factor.startswith("base_layer.") else "down_proj"
        name = factor.removeprefix("base_layer.")
        for e in range(n_expert):
            own = values.chunk(n_expert)[e] if "lora_A" in name else values.reshape(len(values), -1, n_expert)[..., e]
            kept[f"{layer}.experts.{e}.{projection}.{name}"] = own.contiguous()
    save_file(kept, target / "adapter_model.safetensors", {"format": "pt"})
    config = json.loads((target / "adapter_config.json").read_bytes())
    modules = r".*(q_proj|\.experts\.\d+\.(up|down)_proj)"
    stated = {**config, "target_modules": modules, "target_parameters": None}
    (target / "adapter_config.json").write_text(json.dumps(stated), encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("pattern", "kinds", "name"),
    [
        ("M-*-", ["mamba", "mlp", "attention", "mlp"], "nemotron_h"),
        ("ME*E", ["linear_attention", "moe", "full_attention", "moe"], "nemotron_h_moe"),
    ],
)
def test_layers_are_letters_or_words(pattern: str, kinds: list[str], name: str, tmp_path: Path) -> None:
    shapes = []
    for stated in ({"hybrid_override_pattern": pattern, "num_hidden_layers": 4}, {"layers_block_type": kinds}):
        config = json.loads((MoreModel(name).hf / "config.json").read_bytes())
        config = {key: value for key, value in config.items() if key != "layers_block_type"}
        (tmp_path / "config.json").write_text(json.dumps(config | stated), encoding="utf-8")
        base = read_base_model(tmp_path)
        assert base.architecture
        assert base.architecture.name == name
        shapes.append({module: base.shape(module) for module in base.matrices(with_experts=True)})
    assert shapes[0] == shapes[1]
    assert {module for module in shapes[0] if module.endswith((".mixer.up_proj", "shared_experts.up_proj"))} == {
        f"model.layers.{i}.mixer.{'shared_experts.' if name.endswith('moe') else ''}up_proj" for i in (1, 3)
    }
