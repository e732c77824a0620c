"""Adapters of classifiers: PEFT saves their head whole, and names two of which a model has one."""

import pytest

from tests.rules.specimens import PREFIX, Specimen, codes, tensor


@pytest.mark.parametrize("name", ["score", "classifier"])
def test_a_classifier_is_told_what_its_head_is(name: str, specimen: Specimen) -> None:
    specimen.config |= {"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]}
    specimen.tensors[f"{PREFIX}.{name}.weight"] = tensor(3, 32)
    specimen.write()
    report = specimen.report()
    assert codes(report) == ["BM001", "LO007"]
    (message,) = {finding.message for finding in report.findings if finding.code == "BM001"}
    assert "is the head of a model that classifies (task_type SEQ_CLS)" in message


@pytest.mark.parametrize("saved", [["classifier", "score"], ["score"], ["score", "norm"]])
def test_a_head_that_is_not_there_is_missing(saved: list[str], specimen: Specimen) -> None:
    specimen.config |= {"task_type": "SEQ_CLS", "modules_to_save": saved}
    specimen.write()
    missing = [finding.message for finding in specimen.report().findings if finding.code == "CF009"]
    assert len(missing) == len(saved)
