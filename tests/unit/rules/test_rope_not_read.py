from dataclasses import replace
from pathlib import Path

import pytest

from converter.derive.adapter import read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.rules.base.rope_not_read import check
from tests.rules.specimens import write_huggingface


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return read_base_model(write_huggingface(tmp_path / "base"))


def faults(base: BaseModel, **config: object) -> list[str]:
    adapter = read_adapter(base.path.parent)  # any: the rule looks at the base
    return [problem.message for problem in check(adapter, replace(base, config={**base.config, **config}))]


def test_a_silent_config_is_no_fault(base: BaseModel) -> None:
    assert faults(base) == []


@pytest.mark.parametrize(
    ("rope", "fault"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "has the rope type 'dynamic'; llama.cpp's llama has default, "),
        ({"rope_type": "yarn"}, "has the rope type 'yarn' without factor"),
        ({"rope_type": "yarn", "factor": 2.0, "mscale": 0.7}, "with mscale, which is not converted"),
        ({"rope_type": "yarn", "factor": 2.0, "beta_fast": 16}, "has beta_fast 16, wanted 32"),
        ({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}, "rotates 0.5 of each head"),
        ({"sliding_attention": {"rope_type": "linear"}, "full_attention": {}}, "in windowed layers"),
    ],
)
def test_what_the_graph_has_not_is_a_fault(base: BaseModel, rope: dict[str, object], fault: str) -> None:
    (message,) = faults(base, rope_parameters=rope)
    assert fault in message


def test_a_field_that_says_nothing_is_no_fault(base: BaseModel) -> None:
    silent = {"rope_type": "yarn", "factor": 2.0, "mscale": None, "attention_factor": None}
    assert faults(base, rope_parameters=silent) == []
