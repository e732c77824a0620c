"""Real adapters of PEFT through adapter-check, beside what `make targets` saw servers do with the very same ones."""

import pytest

import converter
from benchmarks.targets.uses import rows
from converter.diagnostics import Deployment, Kind, Report
from converter.targets.tables import target_named
from fixtures.served import RECIPES, recipes_on, served_adapter, served_base
from tests.targets.measurements import measured, used

BASE = "llama-tied"
CODES = {"exact": [], "refused": ["TG001"], "silent": ["TG002"]}


def test_what_adapters_make_use_of_is_what_was_written_down() -> None:
    found = {(base, adapter): (name, uses, codes) for base, adapter, name, uses, codes in rows(BASE)}
    told = {key: (it.architecture, " ".join(it.features), " ".join(it.codes)) for key, it in used().items()}
    assert found == {key: value for key, value in told.items() if key[0] == BASE}


@pytest.mark.parametrize("recipe", recipes_on(BASE))
def test_adapter_check_says_what_the_servers_did(recipe: str) -> None:
    outcomes = {f"{it.target}@{it.version}": it.outcome for it in measured() if (it.base, it.adapter) == (BASE, recipe)}
    report = check(recipe, *outcomes)
    found = {target.name: codes(report, target.name) for target in report.targets}
    if RECIPES[recipe].broken:
        assert all(found.values())
    else:
        gravest = {name: codes[:1] for name, codes in found.items()}
        assert gravest == {name: CODES[outcome] for name, outcome in outcomes.items()}


@pytest.mark.parametrize("recipe", [recipe for recipe in recipes_on(BASE) if not RECIPES[recipe].broken])
@pytest.mark.parametrize("base", [BASE, "llama-untied"])
def test_what_is_told_of_llama_cpp_is_what_the_rules_say(recipe: str, base: str) -> None:
    """Rules judge llama.cpp's targets; their tables are for the page alone."""
    features = used()[base, recipe].features
    kinds: tuple[tuple[str, Kind], ...] = (("llama.cpp-lora", "lora"), ("llama.cpp-model", "model"))
    for name, kind in kinds:
        table = target_named(name)
        facts = [table.fact(feature, table.newest, "any") for feature in features]
        assert all(facts)
        told = [fact.does for fact in facts if fact and fact.verdict != "exact"]
        report = converter.check(
            converter.read_adapter(served_adapter(recipe, base)),
            converter.read_base(served_base(base)),
            Deployment.of(kind),
        )
        blockers = set(report.blockers(kind)) - {"BM042"}  # these bases have no tokenizer
        assert bool(blockers) == bool(told)
        assert all(any(code in does for does in told) for code in blockers)


def check(recipe: str, *targets: str) -> Report:
    adapter, base = converter.read_adapter(served_adapter(recipe, BASE)), converter.read_base(served_base(BASE))
    return converter.check(adapter, base, targets=targets)


def codes(report: Report, name: str) -> list[str]:
    (target,) = (target for target in report.targets if target.name == name)
    return list(dict.fromkeys(finding.code for finding in report.stopping_target(target)))
