"""What stands between an adapter and PEFT's merge: keys, the order of modules, and the check of the merge itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft.tuners.ia3 import Linear as Ia3Linear
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from converter.conversion import Refused, plan
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.derive.module_paths import normal_module
from converter.derive.peft_methods import peft_methods
from converter.diagnostics import Deployment
from converter.errors import RuleBroken
from converter.through_peft.equivalent import equivalent_adapter
from converter.through_peft.shell import matrices_of
from fixtures.peft_methods import METHODS, method_adapter
from fixtures.tiny import CONFIGS, TinyModel

MODEL = Deployment("model")
Tensors = dict[str, torch.Tensor]


@pytest.mark.parametrize("name", CONFIGS)
def test_modules_stand_in_the_order_of_transformers(name: str) -> None:
    """UNILORA and TINYLORA deal out what all modules share in that order."""
    base = TinyModel(name)
    model = AutoModelForCausalLM.from_pretrained(base.hf)
    matrices = [path for path, module in model.named_modules() if getattr(module, "weight", torch.empty(0)).dim() == 2]
    assert list(matrices_of(read_base_model(base.gguf))) == [normal_module(path) for path in matrices]


@pytest.mark.parametrize("method", ["ia3", "unilora", "vblora", "loha_and_saved_head"])
def test_the_ledger_holds_each_key_and_field_once(method: str, tmp_path: Path) -> None:
    base, directory = TinyModel("llama", tied=False), method_adapter(method, TinyModel("llama", tied=False))
    adapter, model = read_adapter(directory), read_base_model(base.gguf)
    with plan(adapter, model, MODEL, scratch=tmp_path) as planned:
        ledger = planned.ledger
        assert list(tmp_path.iterdir())
    assert adapter.config
    assert sorted(x.key for x in ledger if x.kind == "tensor") == sorted(tensor.key for tensor in adapter.tensors)
    assert sorted(x.key for x in ledger if x.kind == "config") == sorted(adapter.config.raw)
    assert list(tmp_path.iterdir()) == []


def drop_one(tensors: Tensors) -> None:
    del tensors[next(iter(tensors))]


def add_one(tensors: Tensors) -> None:
    key = next(iter(tensors))
    tensors[key.replace("hada_w1_a", "hada_t1")] = tensors[key].clone()


def cut_one(tensors: Tensors) -> None:
    key = next(iter(tensors))
    tensors[key] = tensors[key][:-1].clone()


@pytest.mark.parametrize("spoil", [drop_one, add_one, cut_one])
def test_a_tensor_that_peft_would_leave_out_is_named(spoil: Callable[[Tensors], None], tmp_path: Path) -> None:
    base, directory = TinyModel("llama"), tmp_path / "adapter"
    directory.mkdir()
    original = method_adapter("loha", base)
    tensors = load_file(original / "adapter_model.safetensors")
    spoil(tensors)
    save_file(tensors, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_bytes((original / "adapter_config.json").read_bytes())
    adapter = read_adapter(directory)
    with pytest.raises(Refused, match=r"CF011") as refused:
        plan(adapter, read_base_model(base.gguf), MODEL, scratch=tmp_path)
    finding = refused.value.report.findings[-1]
    assert "hada_" in finding.message
    assert [path for path in tmp_path.iterdir() if path != directory] == []


def test_a_merge_that_is_not_what_the_layer_computes_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The control: PEFT's merge, with one row of the weight left as it was."""
    base = TinyModel("llama")
    right = Ia3Linear.merge

    def wrong(self: Ia3Linear) -> None:
        weight = self.get_base_layer().get_parameter("weight")
        before = weight[7].clone()
        right(self)
        self.get_base_layer().get_parameter("weight").data[7] = before

    monkeypatch.setattr(Ia3Linear, "merge", wrong)
    adapter = read_adapter(method_adapter("ia3", base))
    with pytest.raises(RuleBroken, match=r"CF010: .*: PEFT's merge is off"):
        equivalent_adapter(adapter, read_base_model(base.gguf), tmp_path)


def test_a_method_that_cannot_merge_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unable(_: Ia3Linear) -> None:
        raise NotImplementedError("not supported")

    monkeypatch.setattr(Ia3Linear, "merge", unable)
    adapter = read_adapter(method_adapter("ia3", TinyModel("llama")))
    with pytest.raises(RuleBroken, match=r"CF010: .*: PEFT can't merge it: not supported"):
        equivalent_adapter(adapter, read_base_model(TinyModel("llama").gguf), tmp_path)


def test_every_method_is_tried() -> None:
    assert set(peft_methods()) <= {method.peft_type for method in METHODS.values()}
