"""What is said of config and headers is remembered: only of those, and only for an adapter that says the same."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from converter.checking import check_adapter
from converter.derive.adapter import Adapter, Origin, read_adapter, with_renamed_keys
from converter.diagnostics import AdapterCheck, CannotLookError, Deployment, NoBaseCheck, Problem, Report, Rule
from converter.read.adapter_files import Fault
from converter.rules import RULES
from tests.rules.bad import BAD, Spoil
from tests.rules.specimens import Specimen, codes, head_lora

REMEMBERED = [rule for rule in RULES if isinstance(rule.check, AdapterCheck | NoBaseCheck)]


def said(rule: Rule, adapter: Adapter) -> tuple[Problem, ...] | str:
    assert isinstance(rule.check, AdapterCheck | NoBaseCheck)
    try:
        return tuple(rule.check.run(adapter))
    except CannotLookError as reason:
        return str(reason)


def judged(directory: Path) -> Report:
    return check_adapter(read_adapter(directory), None, Deployment())


def twin_of(specimen: Specimen, directory: Path) -> Specimen:
    shutil.copytree(specimen.directory, directory)
    return Specimen(directory, specimen.base)


EACH_BAD = pytest.mark.parametrize("spoil", [spoil for _, spoil in BAD], ids=lambda spoil: spoil.__name__)


@EACH_BAD
def test_what_follows_from_config_and_headers_needs_no_file_and_not_where_they_lie(
    spoil: Spoil, specimen: Specimen, bases: Path, tmp_path: Path
) -> None:
    spoil(specimen, bases)
    here = read_adapter(specimen.directory)
    before = [said(rule, here) for rule in REMEMBERED]
    elsewhere = tmp_path / "another" / "place"
    elsewhere.parent.mkdir()
    specimen.directory.rename(elsewhere)
    there = read_adapter(elsewhere)
    if here.says_the_same(there):
        shutil.rmtree(elsewhere)
        assert [said(rule, there) for rule in REMEMBERED] == before


@EACH_BAD
def test_a_bad_adapter_is_found_whatever_was_judged_before(
    spoil: Spoil, specimen: Specimen, bases: Path, tmp_path: Path
) -> None:
    good = Specimen(tmp_path / "good", specimen.base)
    good.write()
    spoil(specimen, bases)
    first = specimen.report(values=False)
    behind_itself = specimen.report(values=False)
    good.report(values=False)
    behind_a_good_one = specimen.report(values=False)
    assert codes(behind_itself) == codes(behind_a_good_one) == codes(first)


def test_twins_say_the_same_wherever_they_lie(specimen: Specimen, tmp_path: Path) -> None:
    specimen.write()
    twin = twin_of(specimen, tmp_path / "twin")
    assert read_adapter(specimen.directory).says_the_same(read_adapter(twin.directory))
    assert codes(judged(specimen.directory)) == codes(judged(twin.directory))


def test_other_bytes_say_something_else(specimen: Specimen, tmp_path: Path) -> None:
    """Also those that Python calls equal: 8 and 8.0 are two ranks to PEFT."""
    specimen.write()
    twin = twin_of(specimen, tmp_path / "twin")
    config = json.loads(twin.config_path.read_text())
    twin.config_path.write_text(json.dumps(config | {"r": float(config["r"])}))
    assert not read_adapter(specimen.directory).says_the_same(read_adapter(twin.directory))
    assert "CF003" in codes(judged(twin.directory))


def test_a_shorter_file_of_the_same_header_says_something_else(specimen: Specimen, tmp_path: Path) -> None:
    specimen.write()
    twin = twin_of(specimen, tmp_path / "twin")
    twin.weights.write_bytes(twin.weights.read_bytes()[:-1])
    assert codes(judged(specimen.directory)) == []
    assert codes(judged(twin.directory))


def test_keys_read_as_others_say_something_else(specimen: Specimen) -> None:
    specimen.tensors = {key.removeprefix("base_model.model."): value for key, value in head_lora().items()}
    specimen.write()
    adapter = read_adapter(specimen.directory)
    renamed = with_renamed_keys(adapter)
    assert renamed.renamed
    assert not renamed.says_the_same(adapter)


def test_an_adapter_without_tensors_is_like_no_other(specimen: Specimen) -> None:
    specimen.tensors = {}
    specimen.write()
    assert not read_adapter(specimen.directory).says_the_same(read_adapter(specimen.directory))


def test_an_adapter_that_is_more_than_its_files_say_is_like_no_other(specimen: Specimen) -> None:
    specimen.write()
    adapter = read_adapter(specimen.directory)
    fault = Fault("pickle", specimen.directory, "is a pickle")
    for more in (
        replace(adapter, faults=(fault,)),
        replace(adapter, index={"key": "shard"}),
        replace(adapter, initial=adapter),
        replace(adapter, origin=Origin(adapter, {})),
        replace(adapter, unchanged=frozenset({"key"})),
        replace(adapter, left_out=adapter.tensors[:1]),
    ):
        assert not more.says_the_same(adapter)
        assert not adapter.says_the_same(more)
