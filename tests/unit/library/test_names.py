"""The public names: pinned, importable by themselves, and lazy."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import converter
from tests.unit.test_imports import HEAVY

NAMES = [
    "Adapter", "BaseModel", "ConversionPlan", "ConverterError", "DeployedLora", "DeployedModel", "Deployment",
    "Finding", "Refused", "Report", "TrainingSettings", "Verification", "Written", "check", "convert", "plan",
    "read_adapter", "read_base", "train", "verify", "write",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert converter.__all__ == NAMES
    assert sorted(dir(converter)) == sorted([*NAMES, "__version__"])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_there_and_documented(name: str) -> None:
    """In a fresh interpreter, for a module of the same name would take its place once it is imported."""
    code = f"import converter.cli.check, converter; print(callable(converter.{name}), converter.{name}.__doc__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    called, _, docstring = done.stdout.partition(" ")
    assert called == "True"
    assert docstring.strip() not in ("", "None")


@pytest.mark.parametrize("name", [name for name in NAMES if name.islower()])
def test_a_function_is_typed(name: str) -> None:
    signature = inspect.signature(getattr(converter, name))
    annotations = [parameter.annotation for parameter in signature.parameters.values()]
    assert inspect.Signature.empty not in [*annotations, signature.return_annotation]


def test_importing_the_library_imports_nothing_heavy() -> None:
    code = "import sys, converter; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not set(done.stdout.split()) & HEAVY


def test_no_module_has_the_name_of_a_function() -> None:
    """Importing it would put the module in the function's place."""
    modules = {path.stem for path in Path(converter.__file__).parent.iterdir()}
    assert not modules & set(NAMES)


def test_what_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        converter.nothing  # noqa: B018
