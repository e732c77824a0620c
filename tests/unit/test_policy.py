"""Policies: where they are found, what they may say, and that a fault in one is told by file and key."""

import json
import tomllib
from datetime import date
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from converter.diagnostics import Limits, Severity
from converter.errors import ConverterError
from converter.policy import find_policy, read_policy

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "policy.schema.json").read_text(encoding="utf-8"))

WHOLE = """
fail-on = "warning"
select = ["HD", "LO"]
ignore = ["SC003"]
targets = ["vllm", "ollama@0.34.0"]

[severity]
LO021 = "warning"

[limits]
rank = 64
size = "200 MB"
bases = ["google/gemma-2-*"]
base-fingerprints = ["norms-sha256:00"]
forbidden-modules = ["lm_head"]

[[by-path]]
path = "experiments/*"
ignore = ["PO"]
severity = { LO021 = "error" }
targets = ["sglang"]
limits = { rank = 256 }

[[waivers]]
code = "HD001"
adapter = "00"
reason = "old"
expires = 2027-03-31
"""


def policy(directory: Path, text: str, name: str = "adapter-check.toml") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def as_json(text: str) -> object:
    return json.loads(json.dumps(tomllib.loads(text), default=str))


def test_everything_is_read(tmp_path: Path) -> None:
    found = read_policy(policy(tmp_path, WHOLE))
    assert found.fail_on is Severity.WARNING
    assert found.settings.select == ("HD", "LO")
    assert found.settings.severity == {"LO021": Severity.WARNING}
    assert found.settings.limits == Limits(64, 200_000_000, ("google/gemma-2-*",), ("norms-sha256:00",), ("lm_head",))
    assert list(map(str, found.settings.targets)) == ["vllm@0.32.0", "ollama@0.34.0"]
    (waiver,) = found.waivers
    assert (waiver.code, waiver.expires, waiver.fault) == ("HD001", date(2027, 3, 31), None)
    assert list(Draft202012Validator(SCHEMA).iter_errors(as_json(WHOLE))) == []


def test_settings_of_a_path_change_the_others(tmp_path: Path) -> None:
    found = read_policy(policy(tmp_path, WHOLE))
    inside, outside = (found.settings_for(tmp_path / name / "a") for name in ("experiments", "adapters"))
    assert outside == found.settings
    assert inside.ignore == ("SC003", "PO")
    assert list(map(str, inside.targets)) == ["sglang@0.5.23"]
    assert inside.severity == {"LO021": Severity.ERROR}
    assert inside.limits == found.settings.limits._replace(rank=256)


def test_pyproject_has_it_in_a_table_of_its_own(tmp_path: Path) -> None:
    path = policy(tmp_path, '[tool.adapter-check]\nignore = ["SC"]\n[tool.other]\nx = 1\n', "pyproject.toml")
    assert read_policy(path).settings.ignore == ("SC",)


FAULTS = [
    ('ignore = "SC"', "ignore is 'SC', wanted a list of prefixes of codes"),
    ("ignore = [3]", "ignore is [3], wanted a list of"),
    ("fail-on = 'never'", 'fail-on is \'never\', wanted "error" or "warning"'),
    ("targets = ['vlm']", "targets is ['vlm'], wanted a list of targets, such as vllm"),
    ("targets = 'vllm'", "targets is 'vllm', wanted a list of targets"),
    ("typo = 1", "typo is not known, wanted one of by-path, fail-on, ignore"),
    ("[limits]\nrank = 0", "limits.rank is 0, wanted a whole number of 1 and more"),
    ("[limits]\nrank = true", "limits.rank is True"),
    ("[limits]\nsize = '200 M'", "limits.size is '200 M', wanted a number of bytes"),
    ("[limits]\ntrust-named-base = 1", "limits.trust-named-base is 1, wanted true or false"),
    ("[limits]\nranks = 3", "limits.ranks is not known"),
    ("[severity]\nHD001 = 'off'", "severity.HD001 is 'off'"),
    ("limits = 3", "limits is 3, wanted a table"),
    ("[[by-path]]\nignore = []", "by-path has no path"),
    ("[[by-path]]\npath = 'a'\nwaivers = []", "by-path.waivers is not known"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS)
def test_what_is_not_known_is_no_policy(text: str, message: str, tmp_path: Path) -> None:
    path = policy(tmp_path, text)
    with pytest.raises(ConverterError) as caught:
        read_policy(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert caught.value.status == 2
    assert list(Draft202012Validator(SCHEMA).iter_errors(as_json(text))), "the schema accepts it"


@pytest.mark.parametrize("text", ["ignore = [", "a = 1\na = 2", "\x00", "x = " + "[" * 5000])
def test_what_is_not_toml_is_no_policy(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConverterError, match="is no policy"):
        read_policy(policy(tmp_path, text))


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ('code = "HD001"\nadapter = "0"\nexpires = 2027-01-01', "has no reason"),
        ('adapter = "0"\nreason = "r"\nexpires = 2027-01-01', "has no code"),
        ('code = "HD001"\nadapter = "0"\nreason = "r"', "expires on None"),
        ('code = "HD001"\nadapter = "0"\nreason = "r"\nexpires = "soon"', "expires on 'soon'"),
        ('code = "HD001"\nadapter = "0"\nreason = "r"\nexpires = 2027-01-01T00:00:00Z', "expires on datetime"),
        ('code = "HD001"\nadapter = "0"\nreason = "r"\nexpires = 2027-01-01\nuntil = 3', "has 'until'"),
    ],
)
def test_a_waiver_that_lacks_anything_is_kept_with_its_fault(fields: str, fault: str, tmp_path: Path) -> None:
    (waiver,) = read_policy(policy(tmp_path, f"[[waivers]]\n{fields}\n")).waivers
    assert str(waiver.fault).startswith(fault)


def test_the_nearest_is_found_up_to_the_root_of_the_repository(tmp_path: Path) -> None:
    inner = tmp_path / "repository" / "a" / "b"
    inner.mkdir(parents=True)
    policy(tmp_path, "")  # above the repository
    (tmp_path / "repository" / ".git").mkdir()
    assert find_policy(inner) is None
    root = policy(tmp_path / "repository", "[tool.adapter-check]", "pyproject.toml")
    policy(inner, "[tool.black]", "pyproject.toml")
    found = find_policy(inner)
    assert found
    assert found.path == root
    nearest = policy(inner.parent, "")
    found = find_policy(inner)
    assert found
    assert found.path == nearest


def test_without_a_repository_only_the_directory_itself_counts(tmp_path: Path) -> None:
    policy(tmp_path, "")
    inner = tmp_path / "a"
    inner.mkdir()
    assert find_policy(inner) is None
    assert find_policy(tmp_path)


def test_an_adapter_never_chooses_its_own_judge(tmp_path: Path) -> None:
    path = policy(tmp_path, 'ignore = ["HD"]')
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConverterError, match="no adapter chooses its own judge"):
        find_policy(tmp_path)
    assert read_policy(path).settings.ignore == ("HD",)  # on the user's word
