"""How rules are applied: what is skipped and why, what is stamped, what is left out."""

import os
from itertools import product
from pathlib import Path

import pytest

from converter import checking
from converter.checking import check_adapter, without
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.diagnostics import (
    LORA,
    AdapterCheck,
    BaseCheck,
    BaseValuesCheck,
    CannotLookError,
    Check,
    Deployment,
    NoBaseCheck,
    Problem,
    Report,
    Rule,
    Severity,
    ValuesCheck,
)
from converter.read.files import read_into
from converter.values import memory, rows
from tests.rules.specimens import Specimen, head_lora, write_gguf

PROBLEM = Problem("key", "is wrong", LORA)


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    specimen = Specimen(tmp_path / "adapter", base=None)
    specimen.tensors |= head_lora()
    specimen.write()
    return read_adapter(specimen.directory)


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return read_base_model(write_gguf(tmp_path / "tied.gguf"))


def judged(check: Check, adapter: Adapter, base: BaseModel | None, *, values: bool) -> Report:
    rule = Rule("XX001", "a-fault", Severity.ERROR, check)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "RULES", (rule,))
        return check_adapter(adapter, base, Deployment(), values=values)


CHECKS: list[tuple[Check, set[tuple[bool, bool]]]] = [  # and with which of base and values it is applied
    (AdapterCheck(lambda _: [PROBLEM]), {(False, False), (False, True), (True, False), (True, True)}),
    (BaseCheck(lambda _, __: [PROBLEM]), {(True, False), (True, True)}),
    (ValuesCheck(lambda _: [PROBLEM]), {(False, True), (True, True)}),
    (BaseValuesCheck(lambda _, __: [PROBLEM]), {(True, True)}),
]


@pytest.mark.parametrize(("check", "applied"), CHECKS, ids=[type(check).__name__ for check, _ in CHECKS])
def test_a_rule_is_applied_or_skipped_with_its_reason(
    check: Check, applied: set[tuple[bool, bool]], adapter: Adapter, base: BaseModel
) -> None:
    for given, values in product((False, True), repeat=2):
        report = judged(check, adapter, base if given else None, values=values)
        assert bool(report.findings) == ((given, values) in applied)
        assert bool(report.skipped) == (not report.findings)
        assert all(skip.reason for skip in report.skipped)


def test_a_rule_for_want_of_a_base_has_nothing_to_say_with_one(adapter: Adapter, base: BaseModel) -> None:
    check = NoBaseCheck(lambda _: [PROBLEM])
    assert judged(check, adapter, None, values=False).findings
    with_base = judged(check, adapter, base, values=False)
    assert (with_base.findings, with_base.skipped) == ((), ())


def test_a_check_that_lacks_something_is_skipped_whole(adapter: Adapter) -> None:
    def check(_: Adapter) -> list[Problem]:
        raise CannotLookError("nothing to compare with")

    (skip,) = judged(AdapterCheck(check), adapter, None, values=False).skipped
    assert (skip.code, skip.reason, skip.by_choice) == ("XX001", "nothing to compare with", False)


def test_findings_carry_code_severity_and_what_they_block(adapter: Adapter) -> None:
    (finding,) = judged(AdapterCheck(lambda _: [PROBLEM]), adapter, None, values=False).findings
    assert (finding.code, finding.name, finding.severity) == ("XX001", "a-fault", Severity.ERROR)
    assert [Deployment(to).kind in finding.blocks for to in ("lora", "model")] == [True, False]


def test_what_is_left_out_still_forbids(adapter: Adapter, base: BaseModel) -> None:
    report = without(check_adapter(adapter, base, Deployment()), frozenset({"HD001", "NM001"}))
    assert report.passed
    assert report.blockers("lora") == ("HD001",)
    assert {skip.code for skip in report.skipped if skip.by_choice} == {"HD001", "NM001"}
    assert len([skip for skip in report.skipped if skip.code == "NM001"]) == 1


def test_the_rules_of_numbers_read_an_adapter_once(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    n_read = []

    def counted(path: Path, offset: int, buffer: memoryview) -> None:
        n_read.append(buffer.nbytes)
        read_into(path, offset, buffer)

    for module in (memory, rows):
        monkeypatch.setattr(module, "read_into", counted)
    for header in adapter.headers:
        os.utime(header.path, (0, 0))  # what is kept is of files that are left alone
    check_adapter(adapter, None, Deployment(), values=True)
    three_rows = 3 * adapter.pairs[0].b.tensor.nbytes // adapter.pairs[0].b.tensor.shape[0]  # rows-lost looks there
    assert sum(n_read) == sum(tensor.tensor.nbytes for tensor in adapter.tensors) + three_rows
