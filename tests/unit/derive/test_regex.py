"""Regexes are matched as ``re`` matches them, in bounded time; the others are refused."""

import re
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.derive.budget import Budget, PatternError
from converter.derive.regex import regex

READ = [
    "q_proj",
    "",
    r"layers\.0\.mlp\.up_proj",
    r".*\.layers\.\d+\.mlp\..*",
    r"^model\.layers\.([0-9]+)\.(self_attn|mlp)\..*$",
    r"model(\.\w+)*\.q_proj",
    "(?i)Q_PROJ",
    r"^(?!.*vision).*(?<=attn\.)q_proj$",
    "[]+*]+x",
]
NOT_READ = [
    "x" * 4001,
    "(unclosed",
    "*",
    "a{2}{3}",
    "[[a]]",
    r"(a)\1",
    "(?>a)b",
    "a++b",
    "(a*)*",
    "(?a:a)",
    "(" * 45 + ")" * 45,
]
HANGS = [
    "(a+)(?#x)+b",
    "(?x:(a+) +b)",
    "(a|aa)" * 30,
    "([a-z_.0-9]+)+!",
    "(?:a|b?a)+c",
    "(?=(a+)+b)",
    ".*.*.*.*!",
]


@pytest.mark.parametrize("pattern", READ)
def test_a_pattern_that_is_read(pattern: str) -> None:
    regex(pattern, Budget())


@pytest.mark.parametrize("pattern", NOT_READ)
def test_a_pattern_that_is_not_read(pattern: str) -> None:
    with pytest.raises(PatternError):
        regex(pattern, Budget())


@pytest.mark.parametrize("pattern", HANGS)
@pytest.mark.parametrize("length", [48, 300])
def test_a_pattern_that_would_hang_ends_at_once(pattern: str, length: int) -> None:
    start = time.process_time()
    with pytest.raises(PatternError, match="ways"):
        regex(pattern, Budget()).matches("a" * length)
    assert time.process_time() - start < 0.5


def test_patterns_of_one_adapter_share_their_budget() -> None:
    read = regex(r"(.*\.)?(q_proj1)$", Budget(2000))
    with pytest.raises(PatternError, match="with the other patterns"):
        [read.matches(f"model.layers.{i}.q_proj") for i in range(100)]


PIECES = [
    *(*"ab.|1", r"\.", "a*", "b+?", "a?", "(a|b)", "(?:ab|a)", "[^a]", r"[\d-]", r"\d", r"\w+", r"\b", r"\B", "^", "$"),
    *(r"\Z", "(?=a)", "(?!b)", "(?<=a)", "(?<!ab)", ".*", ".*?", "a{2}", "(ab){1,2}", "(?:a|b)+", "(?i:A)", "(?s:.)"),
    *("(a|ab)(c|bcd)", "(?i)", "(?m)", "(?x) # b\n", r"\x31", "[0-1]", r"\{1}", "[]{1}]", "a{0}", r"\S", "[a-c\n]"),
]


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.text(alphabet="abAc.12{\n", max_size=8))
def test_the_verdict_is_pythons(pattern: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read = regex(pattern, Budget())
        except PatternError:
            return
        assert read.matches(text) == (re.match(pattern, text) is not None)
        assert read.fullmatches(text) == (re.fullmatch(pattern, text) is not None)


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab.*+?()|[]{}1,\\$^<!=:-", max_size=16), st.text(alphabet="ab.1", max_size=8))
def test_the_verdict_on_any_characters_is_pythons(pattern: str, text: str) -> None:
    try:
        read = regex(pattern, Budget())
    except PatternError:
        return
    assert read.fullmatches(text) == (re.fullmatch(pattern, text) is not None)
