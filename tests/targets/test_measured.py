"""The targets' tables against what real servers did with real adapters (`make targets`)."""

from dataclasses import dataclass
from typing import TypeGuard

import pytest

from converter.targets.tables import Fact, Target, target_named
from tests.targets.measurements import disagreements, facts, measured, said, used

FIVE = {"llama-tied", "llama-untied", "qwen2-tied", "qwen3-tied", "gemma2-tied"}
LOADERS = {("vllm", "0.31.0"), ("vllm", "0.32.0"), ("sglang", "0.5.23")}


def test_no_server_does_what_adapter_check_does_not_say() -> None:
    assert disagreements() == []


@pytest.mark.parametrize(("target", "version"), sorted(LOADERS))
def test_thirty_adapters_on_five_bases_went_through_each_loader(target: str, version: str) -> None:
    cells = {(row.base, row.adapter) for row in measured() if (row.target, row.version) == (target, version)}
    assert all(sum(base == found for found, _ in cells) >= 30 for base in FIVE)


def test_real_vllm_serves_as_peft_does() -> None:
    exact = [row for row in measured() if row.target == "vllm" and row.outcome == "exact"]
    assert len(exact) >= 12
    assert all(row.ratio is not None and row.ratio <= 1e-6 for row in exact)
    others = [row.ratio for row in measured() if row.target == "vllm" and row.outcome == "silent" and row.ratio]
    assert others
    assert min(others) > 1e-3, "between exact and wrong there is nothing"


@pytest.mark.parametrize(("adapter", "newer"), [("alpha_pattern", "exact"), ("pissa", "refused")])
def test_versions_are_told_apart(adapter: str, newer: str) -> None:
    cell = ("vllm", "llama-tied", adapter)
    rows = {row.version: row for row in measured() if (row.target, row.base, row.adapter) == cell}
    assert {version: row.outcome for version, row in rows.items()} == {"0.31.0": "silent", "0.32.0": newer}
    assert {version: said(row) for version, row in rows.items()} == {"0.31.0": "silent", "0.32.0": newer}


def test_what_is_broken_in_itself_is_refused_for_every_target() -> None:
    broken = {adapter for (_, adapter), use in used().items() if use.codes}
    assert broken == {"nan", "lora_b_missing", "rank_misstated", "no_tensors", "truncated"}
    served = {row.adapter for row in measured() if row.adapter in broken and row.outcome != "refused"}
    assert served >= {"nan", "rank_misstated"}, "some servers serve them without a word"


@dataclass(frozen=True)
class Spoilt:
    """The tables with one fact of one target turned round."""

    target: str
    feature: str
    fact: Fact

    def __call__(self, name: str) -> Target:
        table = target_named(name)
        return table._replace(features={**table.features, self.feature: [self.fact]}) if name == self.target else table


@pytest.mark.parametrize(
    "spoilt",
    [
        Spoilt("vllm", "alpha_pattern", Fact("exact", "0.31.0")),
        Spoilt("vllm", "pissa", Fact("silent", "0.31.0")),
        Spoilt("vllm", "head_lora_tied", Fact("exact", "0.31.0")),
        Spoilt("sglang", "rslora", Fact("exact", "0.5.23")),
        Spoilt("sglang", "tied_pair", Fact("exact", "0.5.23")),
        Spoilt("transformers", "dora", Fact("exact", "5.23.0")),
        Spoilt("peft-merge", "head_lora_tied", Fact("exact", "0.21.2")),
        Spoilt("vllm", "lora", Fact("exact", "0.32.0")),
    ],
)
def test_a_spoilt_table_is_seen(spoilt: Spoilt) -> None:
    assert disagreements(spoilt)


def is_silent(fact: Fact | None) -> TypeGuard[Fact]:
    return fact is not None and fact.verdict == "silent"


def test_the_ratio_that_a_table_tells_is_the_largest_measured() -> None:
    largest: dict[tuple[str, str, str], float] = {}
    for row in measured():
        features = used()[row.base, row.adapter].features
        found = zip(features, facts(row), strict=True)
        silent = [(feature, fact) for feature, fact in found if is_silent(fact)]
        if len(silent) == 1 and row.ratio is not None and row.outcome == "silent":
            key = (row.target, silent[0][0], silent[0][1].since)
            largest[key] = max(largest.get(key, 0.0), row.ratio)
    told = {
        (name, feature, fact.since): fact.ratio
        for name in {row.target for row in measured()}
        for feature, rows in target_named(name).features.items()
        for fact in rows
        if fact.verdict == "silent"
    }
    assert told == pytest.approx(largest, rel=0.06)
