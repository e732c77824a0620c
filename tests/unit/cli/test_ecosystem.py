"""The ways in which pipelines call adapter-check: the action's script, the hook's entry, the module."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rules.specimens import Specimen, head_lora, write_gguf

ROOT = Path(__file__).parents[3]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a plain adapter and one with a LoRA on a tied head."""
    base = write_gguf(tmp_path / "base.gguf")
    for name in ("plain", "a head"):
        it = Specimen(tmp_path / "adapters" / name, base)
        it.tensors |= head_lora() if name == "a head" else {}
        it.write()
    (tmp_path / "bin").mkdir()
    script = f'#!/bin/sh\nexec "{sys.executable}" -m converter check "$@"\n'
    (tmp_path / "bin" / "adapter-check").write_text(script, encoding="utf-8")
    (tmp_path / "bin" / "adapter-check").chmod(0o755)
    return tmp_path


def run_action(repository: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    stated = {name: entry.get("default", "") for name, entry in action["inputs"].items()} | inputs
    step = action["runs"]["steps"][1]
    environment = os.environ | {"GITHUB_STEP_SUMMARY": str(repository / "summary.md"), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{repository / 'bin'}:{os.environ['PATH']}"
    for name, value in step["env"].items():
        environment[name] = stated[re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", value)[1]]  # type: ignore[index]
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_action_blocks_a_tied_head_and_passes_a_plain_adapter(repository: Path) -> None:
    ran = run_action(repository, paths="adapters/plain\n", base="base.gguf")
    assert (ran.returncode, ran.stdout) == (0, "")
    ran = run_action(repository, paths="adapters/plain\nadapters/a head\n", base="base.gguf", arguments="--strict\n")
    assert ran.returncode == 1
    assert ran.stdout.startswith("::error file=adapters/a head/adapter_model.safetensors,title=HD001 ")
    assert "HD001" in (repository / "adapter-check.sarif").read_text(encoding="utf-8")
    assert "refused" in (repository / "summary.md").read_text(encoding="utf-8")


def test_the_actions_inputs_are_no_commands(repository: Path) -> None:
    ran = run_action(repository, paths='$(touch "$PWD/mark")\n`touch mark`\n--version\n', base='"; touch mark; "')
    assert ran.returncode == 2
    assert not (repository / "mark").exists()


def test_the_hook_looks_at_adapters(repository: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert re.search(hook["files"], "adapters/a head/adapter_config.json")
    assert re.search(hook["files"], "adapter_model-00001-of-00002.safetensors")
    assert not re.search(hook["files"], "src/adapter_config.jsonl.py")
    environment = os.environ | {"PATH": f"{repository / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = [hook["entry"], *hook["args"], "--base", "base.gguf"]
    ran = subprocess.run(command, cwd=repository, env=environment, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert b"HD001" in ran.stdout


@pytest.mark.parametrize(("arguments", "status"), [(["check", "--version"], 0), (["chek"], 2), ([], 2)])
def test_the_module_runs_the_commands(arguments: list[str], status: int) -> None:
    command = [sys.executable, "-m", "converter", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == status
    assert ("0." in ran.stdout) if status == 0 else ("check, to-gguf, verify, train" in ran.stderr)
