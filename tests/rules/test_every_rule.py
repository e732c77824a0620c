"""What holds for all rules: they are listed, documented, and each has an adapter that breaks it and nothing else."""

import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

import converter.rules
from converter.conversion import KEPT_CODE
from converter.diagnostics import Rule, WhileWriting
from converter.evaluation.encode import OVERFLOW_CODE
from converter.evaluation.finite import NOT_FINITE_CODE
from converter.report.documentation import documentation, module_of
from converter.rules import RETIRED, RULES
from tests.rules.bad import BAD, Spoil
from tests.rules.specimens import Specimen, codes

FAMILIES = {
    "ST": "container",
    "CF": "config",
    "LO": "lora",
    "HD": "heads",
    "BM": "base",
    "NM": "numbers",
    "GG": "gguf",
    "SC": "security",
    "PO": "policy",
    "TG": "targets",
}
WHILE_WRITING = {rule.code for rule in RULES if isinstance(rule.check, WhileWriting)}  # tests/e2e breaks them


def test_every_module_is_a_listed_rule() -> None:
    found = {
        import_module(f"converter.rules.{family}.{module.name}").RULE.code
        for family in FAMILIES.values()
        for module in pkgutil.iter_modules([str(Path(converter.rules.__file__).parent / family)])
    }
    assert found == {rule.code for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_rule_lies_in_its_family(rule: Rule) -> None:
    assert module_of(rule).split(".")[2] == FAMILIES[rule.code[:2]]


def test_rules_are_in_code_order_and_unique() -> None:
    order = [(list(FAMILIES).index(rule.code[:2]), rule.code) for rule in RULES]
    assert order == sorted(set(order))
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_no_code_is_free_but_those_behind_the_last() -> None:
    """A rule that was removed without a word would leave a gap; groups of a family begin at 1 and at tens."""
    gone = {rule.code for rule in RETIRED}
    codes = {rule.code for rule in RULES} | gone
    assert len(codes) == len(RULES) + len(RETIRED)
    assert gone.isdisjoint(rule.code for rule in RULES)
    begins = {code for code in codes if code[2:] == "001" or code.endswith("0")}
    before = {f"{code[:2]}{int(code[2:]) - 1:03}" for code in codes - begins}
    assert before <= codes


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_rule_is_named_and_documented(rule: Rule) -> None:
    assert re.fullmatch(r"[A-Z]{2}\d{3}", rule.code)
    module = module_of(rule).rpartition(".")[2]
    assert rule.name == module.replace("_", "-")
    text = documentation(rule)
    assert text.summary.endswith(".")
    assert text.why.endswith(".")
    assert text.what_to_do.endswith(".")


def test_every_rule_has_a_bad_adapter() -> None:
    assert {codes[0] for codes, _ in BAD} == {rule.code for rule in RULES} - WHILE_WRITING


def test_what_is_found_while_writing_is_documented() -> None:
    by_peft = {"CF010", "CF011"}  # their constants lie beside torch
    assert {OVERFLOW_CODE, KEPT_CODE, NOT_FINITE_CODE, *by_peft} == WHILE_WRITING


@pytest.mark.parametrize(("expected", "spoil"), BAD, ids=[f"{codes[0]}-{spoil.__name__}" for codes, spoil in BAD])
def test_a_bad_adapter_has_exactly_its_code(
    expected: tuple[str, ...], spoil: Spoil, specimen: Specimen, bases: Path
) -> None:
    spoil(specimen, bases)
    assert codes(specimen.report()) == sorted(expected)


@pytest.mark.parametrize("base", ["tied.gguf", "untied.gguf"])
def test_the_good_adapter_has_none(base: str, specimen: Specimen, bases: Path) -> None:
    specimen.base = bases / base
    specimen.write()
    report = specimen.report()
    assert report.findings == ()
    assert report.skipped == ()
