from dataclasses import replace
from pathlib import Path

import pytest

from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.rope import rope_of
from converter.planning.rope import rope_factors, rope_key_values
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
