"""Targets beside the rules: whatever is wrong with an adapter, every target has an answer, and none is a wrong yes."""

from pathlib import Path

import pytest

from converter.diagnostics import Severity
from converter.rules import RULES
from converter.targets.tables import NAMES
from tests.rules.bad import BAD, Spoil
from tests.rules.specimens import Specimen

OF_GGUF = {rule.code for rule in RULES if rule.gguf}


@pytest.mark.parametrize(("expected", "spoil"), BAD, ids=[f"{codes[0]}-{spoil.__name__}" for codes, spoil in BAD])
def test_every_target_has_an_answer(expected: tuple[str, ...], spoil: Spoil, specimen: Specimen, bases: Path) -> None:
    spoil(specimen, bases)
    specimen.targets = (*specimen.targets, *NAMES)
    report = specimen.report()
    assert {target.name.partition("@")[0] for target in report.targets} == set(NAMES)
    is_error = any(found.severity is Severity.ERROR and found.code == expected[0] for found in report.findings)
    if is_error and expected[0] not in OF_GGUF and not expected[0].startswith("TG"):
        served = [target for target in report.targets if target.form == "peft" and not report.stopping_target(target)]
        assert served == [], "a fault of the adapter is one for every server"
