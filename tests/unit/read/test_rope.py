from dataclasses import replace
from pathlib import Path

import pytest

from converter.planning.rope import rope_factors, rope_key_values
from converter.read.base_model import BaseModel, read_base_model
from converter.read.rope import rope_fault, rope_of
from tests.rules.specimens import write_huggingface

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return read_base_model(write_huggingface(tmp_path / "base"))


def with_config(base: BaseModel, **config: object) -> BaseModel:
    return replace(base, config={**base.config, **config})


def test_a_silent_config_has_its_class_s_rope(base: BaseModel) -> None:
    rope = rope_of(base)
    assert rope
    assert (rope.type, rope.theta, rope.partial, rope.local_theta) == ("default", 10000.0, 1.0, None)
    assert rope_fault(base) is None


def test_both_spellings_are_one(base: BaseModel) -> None:
    new = with_config(base, rope_parameters={"rope_theta": 5e5, "rope_type": "linear", "factor": 2})
    old = with_config(base, rope_theta=500000, rope_scaling={"type": "linear", "factor": 2.0})
    assert {(e.key, e.value) for e in rope_key_values(new)} == {(e.key, e.value) for e in rope_key_values(old)}
    assert ("llama.rope.scaling.factor", 2.0) in {(entry.key, entry.value) for entry in rope_key_values(new)}


def test_llama3_leaves_short_waves_alone_and_stretches_long_ones(base: BaseModel) -> None:
    scaled = with_config(base, rope_parameters={**LLAMA3, "rope_theta": 5e5})
    ((name, factors),) = rope_factors(scaled)
    assert name == "rope_freqs.weight"
    values = memoryview(factors.data).cast("d").tolist()
    assert values[0] == 1.0
    assert values[-1] == 8.0
    assert values == sorted(values)
    assert len(values) == base.dims["head_dim"] // 2


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
    assert fault in str(rope_fault(with_config(base, rope_parameters=rope)))


def test_a_field_that_says_nothing_is_no_fault(base: BaseModel) -> None:
    silent = {"rope_type": "yarn", "factor": 2.0, "mscale": None, "attention_factor": None}
    assert rope_fault(with_config(base, rope_parameters=silent)) is None
