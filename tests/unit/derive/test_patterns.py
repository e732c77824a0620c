"""What an adapter's patterns say of a module is what PEFT's own functions say."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from converter.derive.patterns import Patterns
from converter.read.adapter_config import AdapterConfig

PATHS = [
    "model.layers.1.self_attn.q_proj",
    "model.layers.11.mlp.experts.3.up_proj",
    "layers.1.self_attn.q_proj",
    "model.language_model.layers.1.mlp.up_proj",
    "transformer.h.1.attn.c_attn",
    "model.layersx1.q_proj",
    "lm_head",
    "q_proj",
]


def patterns(**fields: object) -> Patterns:
    return Patterns(AdapterConfig(Path("adapter_config.json"), {}, **fields))  # type: ignore[arg-type]  # names vary


SELECTIONS: list[dict[str, object]] = [
    {"target_modules": ("q_proj",)},
    {"target_modules": ("model.layers.1.self_attn.q_proj", "up_proj"), "layers_to_transform": (11,)},
    {"target_modules": ("q_proj", "up_proj"), "layers_to_transform": (1,)},
    {"target_modules": ("c_attn", "q_proj"), "layers_to_transform": (1,), "layers_pattern": ("h",)},
    {"target_modules": ("c_attn", "q_proj"), "layers_to_transform": (1,), "layers_pattern": ("blocks", "l.yers")},
    {"target_modules": ("q_proj", "up_proj"), "exclude_modules": ("layers.1.self_attn.q_proj",)},
    {"target_modules": ("q_proj", "up_proj"), "exclude_modules": r".*experts.*"},
    {"target_modules": ("q_proj", "lm_head"), "modules_to_save": ("self_attn", "lm.head")},
    {"target_modules": ("q_proj", "lm_head"), "modules_to_save": ("q|h",)},
    {"target_modules": r".*(?<!experts)\.\d+\..*q_proj"},
    {"target_modules": "q_proj,up_proj"},
    {"target_modules": ()},
]


@pytest.mark.parametrize("fields", SELECTIONS)
def test_what_is_selected_is_what_peft_selects(fields: dict[str, object]) -> None:
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    theirs = LoraConfig(**{"target_modules": [], **lists})  # type: ignore[arg-type]  # names vary
    ours = patterns(**fields)
    for path in PATHS:
        assert ours.selects(path) is bool(check_target_module_exists(theirs, path)), path
    assert not ours.unread


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["q_proj", "attn.q_proj", "^model.*", r".*\.1\..*", "x1.q_proj", "l", "up_proj|q_proj"])),
    st.sampled_from(PATHS),
)
def test_the_first_key_is_the_one_that_peft_takes(keys: list[str], path: str) -> None:
    numbered = dict(zip(keys, range(2, 100), strict=False))
    assert patterns(r=1, rank_pattern=numbered).rank(path) == numbered.get(get_pattern_key(keys, path), 1)


@pytest.mark.parametrize("key", ["(j+)+x", "a)(b", "(q_proj"])
def test_a_key_that_is_not_read_matches_nothing(key: str) -> None:
    read = patterns(r=1, rank_pattern={key: 2, "q_proj": 3})
    assert read.rank(f"model.{'j' * 40}") == 1
    assert read.rank("model.q_proj") == 3
    assert list(read.unread) == [("rank_pattern", key)]


def test_a_key_for_each_of_18000_modules_is_looked_up() -> None:
    paths = [f"model.layers.{i}.mlp.experts.{e}.up_proj" for i in range(48) for e in range(375)]
    read = patterns(r=1, rank_pattern={path: i + 2 for i, path in enumerate(paths)})
    start = time.process_time()
    assert [read.rank(path) for path in paths] == list(range(2, len(paths) + 2))
    assert time.process_time() - start < 2
    assert not read.unread


def test_unsloths_pattern_is_asked_about_18000_modules() -> None:
    parts = "self_attn|attention|attn|mlp|feed_forward|ffn|dense"
    read = patterns(
        target_modules=rf"(?:.*?(?:language|text).*?(?:{parts}).*?proj.*?)|(?:\bmodel\.layers\.[\d]{{1,}}.*)"
    )
    paths = [f"model.layers.{i}.mlp.experts.{e}.up_proj" for i in range(48) for e in range(375)]
    start = time.process_time()
    assert all(read.selects(path) for path in paths)
    assert time.process_time() - start < 1


def test_flags_in_a_layers_pattern_are_not_read() -> None:
    read = patterns(target_modules=("q_proj",), layers_to_transform=(1,), layers_pattern=("(?i)a",))
    assert read.selects("model.layers.1.self_attn.q_proj") is None
    assert "global flags" in read.unread["layers_pattern", "(?i)a"]


@pytest.mark.parametrize("layers_pattern", ["(a+)+", "layers|h", "l.*"])
def test_a_layers_pattern_that_is_more_than_a_name_is_not_read(layers_pattern: str) -> None:
    read = patterns(target_modules=("q_proj",), layers_to_transform=(1,), layers_pattern=(layers_pattern,))
    assert read.selects(PATHS[0]) is None
    assert re.search("more than a name", read.unread["layers_pattern", layers_pattern])
