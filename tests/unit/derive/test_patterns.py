"""Which regexes are run at all, and that those which are take little time."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.derive.patterns import first_match, is_bounded

BOUNDED = [
    "q_proj",
    r"layers\.0\.mlp\.up_proj",
    r".*\.layers\.\d+\.mlp\..*",
    r"^model\.layers\.([0-9]+)\.(self_attn|mlp)\..*$",
    r"layers\.(1|2|3)\.mlp\.(up|down)_proj",
    r"[a-z_.]+\.q_proj",
    r"[]+*]+x",
    r"\(+x",
    "",
]
UNBOUNDED = [
    "([a-z_.0-9]+)+!",
    "(a|a)*",
    "(a?){20}",
    "(?:a|b+)+c",
    "((a+)b)*",
    "(a*)*",
    ".*.*.*.*!",
    "x" * 1001,
    "(unclosed",
    "*",
    "a{2}{3}",
    "[[a]]",
    "(?i)q_proj",  # a flag not at the start, as PEFT runs it
    "a)(b",
]


@pytest.mark.parametrize("pattern", BOUNDED)
def test_bounded(pattern: str) -> None:
    assert is_bounded(pattern)


@pytest.mark.parametrize("pattern", UNBOUNDED)
def test_not_bounded(pattern: str) -> None:
    assert not is_bounded(pattern)


def test_patterns_that_are_not_bounded_match_nothing() -> None:
    assert first_match(["(q_proj+)+", "q_proj"], "model.q_proj") == "q_proj"


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.*+?()|[]{}1,\\$^", max_size=24))
def test_a_bounded_pattern_is_quick_on_any_path(pattern: str) -> None:
    if is_bounded(pattern):
        start = time.perf_counter()
        first_match([pattern], "a.b" * 50)
        assert time.perf_counter() - start < 1
