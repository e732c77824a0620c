"""Every table is what llama.cpp's own converter does, and a table with one fault is seen to differ.

The converter's sources come with `make test`, or from where LLAMA_CPP_SOURCES says.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from converter.architectures import TABLES, Architecture, Place
from converter.architectures import _table as table_as_written
from tools.coded_models import SUBJECTS, TIED
from tools.draft_table import closest, left_to_say, modules
from tools.llama_cpp_sources import sources
from tools.measured_metadata import metadata_differences
from tools.measured_tables import Measured, differences, entries, measured
from tools.spoilt_tables import ExpertsExchanged, spoilt

pytestmark = [
    pytest.mark.llama,
    pytest.mark.skipif(
        sources() is None, reason="the sources of llama.cpp's converter: python -m tools.llama_cpp_sources"
    ),
]

Measurements = Mapping[str, tuple[Measured, ...]]  # by table


@pytest.fixture(scope="module")
def measurements() -> Iterator[Measurements]:
    with TemporaryDirectory() as directory:
        found: dict[str, tuple[Measured, ...]] = {}
        for name, twice in measured(SUBJECTS.values(), Path(directory)).items():
            table = SUBJECTS[name].table
            found[table] = (*found.get(table, ()), *twice)
        yield found


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_what_llama_cpps_converter_does(table: str, measurements: Measurements) -> None:
    wrong = [str(difference) for found in measurements[table] for difference in differences(found)]
    assert not wrong
    looked_at = {entry for found in measurements[table] for entry in entries(found)}
    architecture = _architecture(measurements[table])
    assert {(module, place.tensor) for module, place in _places(architecture, table)} == looked_at


@pytest.mark.parametrize("table", TABLES)
def test_the_graph_is_told_what_llama_cpps_converter_tells_it(table: str, measurements: Measurements) -> None:
    """Of a directory; the control is a table that says something else."""
    found = measurements[table][0]
    architecture = _architecture(measurements[table])
    if architecture.metadata.only_copied:
        return
    assert not [difference for found in measurements[table] for difference in metadata_differences(found)]
    key, value = next(iter(architecture.metadata.required.items()))
    other = architecture._replace(metadata=architecture.metadata._replace(required={f"not_{key}": value}))
    spoilt = Measured(found.model)
    spoilt.__dict__["base"] = replace(found.base, architecture=other)
    assert list(metadata_differences(spoilt))


@pytest.mark.parametrize("table", TABLES)
def test_a_table_with_one_fault_is_seen(table: str, measurements: Measurements) -> None:
    architecture = _architecture(measurements[table])
    faults = dict(spoilt(architecture))
    assert len(faults) > 20
    unseen = [
        fault for fault, wrong in faults.items() if not any(differences(found, wrong) for found in measurements[table])
    ]
    assert [fault for fault in unseen if not (fault.startswith("lm_head ") and _is_tied(table))] == []


@pytest.mark.parametrize("table", TABLES)
def test_two_experts_exchanged_are_seen(table: str, measurements: Measurements) -> None:
    architecture = _architecture(measurements[table])
    slabs = {module for module, places in architecture.modules.items() if "{e}" in module or places[0].expert}
    if not slabs:
        assert not differences(measurements[table][0], ExpertsExchanged(*architecture))
    for found in measurements[table]:
        exchanged = differences(found, ExpertsExchanged(*architecture))
        assert bool(exchanged) == any(module in slabs for module, _ in entries(found))


@pytest.mark.parametrize("table", ["llama", "gemma3", "olmo2", "nemotron", "qwen3moe"])
def test_a_draft_says_of_modules_what_the_table_says(table: str, measurements: Measurements) -> None:
    drafted = modules(measurements[table])
    left = left_to_say(drafted, table_as_written(table)["modules"])
    assert {field for entry in left.values() for field in entry} <= {
        "bias",
        "lora",
    }  # what graphs do is another measurement
    another = left_to_say(drafted, table_as_written("gpt2")["modules"])
    assert "model.layers.{i}.self_attn.q_proj" in another
    assert len(closest(drafted)[1]) < len(another)


def _architecture(found: tuple[Measured, ...]) -> Architecture:
    architecture = found[0].base.architecture
    assert architecture
    return architecture


def _places(architecture: Architecture, table: str) -> Iterator[tuple[str, Place]]:
    for module, places in architecture.modules.items():
        if module != "lm_head" or not _is_tied(table):
            yield from ((module, place) for place in places)


def _is_tied(table: str) -> bool:
    """Whether llama.cpp's converter knows no head of such models."""
    return all(name in TIED for name, subject in SUBJECTS.items() if subject.table == table)
