"""The scale of every pair, against the one that PEFT itself computes."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from converter.derive.adapter import read_adapter

CASES = list(product([False, True], [{}, {"q": 3, "first.v": 5}], [{}, {"q": 2, "v": 9}]))


@pytest.mark.parametrize(("use_rslora", "alphas", "ranks"), CASES)
def test_it_is_that_of_peft(
    use_rslora: bool,
    alphas: dict[str, int],
    ranks: dict[str, int],
    tmp_path: Path,
) -> None:
    model: Any = torch.nn.ModuleDict(
        {name: torch.nn.ModuleDict({part: torch.nn.Linear(4, 4) for part in "qkv"}) for name in ("first", "second")}
    )
    fields: dict[str, Any] = {"alpha_pattern": alphas, "rank_pattern": ranks, "use_rslora": use_rslora}
    wrapped = get_peft_model(model, LoraConfig(r=5, lora_alpha=7, target_modules=["q", "k", "v"], **fields))
    wrapped.save_pretrained(str(tmp_path))
    wanted = {
        name.removeprefix("base_model.model."): module.scaling["default"]
        for name, module in wrapped.named_modules()
        if hasattr(module, "scaling")
    }
    assert {pair.module: pair.scaling for pair in read_adapter(tmp_path).pairs} == pytest.approx(wanted)
    assert len(wanted) == 6
