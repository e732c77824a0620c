"""Every adapter of fixtures/served.py through every server that runs here; `make targets`.

    python -m benchmarks.targets.measure VENVS      writes tests/targets/measured.tsv

VENVS holds a venv for each version of vLLM (vllm-VERSION) and SGLang's source (sglang-VERSION). Ours are transformers
and PEFT. An adapter is served exactly where the effect ratio is at most EXACT.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.targets.peft_itself import WAYS, Answer, answer
from fixtures.adapters import untie
from fixtures.served import BASES, TOKENS, load, log_probabilities, recipes_on, served_adapter, served_base

HERE: Final = Path(__file__).parent
TABLE: Final = HERE.parent.parent / "tests" / "targets" / "measured.tsv"
EXACT: Final = 1e-6
SGLANG: Final = ("llama", "qwen2", "qwen3", "gemma2")  # of whose classes the loader's stand-ins know how they are built
Logits = npt.NDArray[np.float64]


class Row(NamedTuple):
    """What one server made of one adapter; ``ratio`` is empty where it refused, ``said`` where it didn't."""

    target: str
    version: str
    base: str
    adapter: str
    outcome: str
    ratio: str
    said: str


def main(venvs: Path) -> None:
    rows = [row for base in BASES for row in _of_base(venvs, base)]
    lines = ["\t".join(Row._fields), *("\t".join(row) for row in sorted(rows))]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _of_base(venvs: Path, base: str) -> Iterator[Row]:
    for venv in sorted(venvs.glob("vllm-*")):
        yield from _rows("vllm", _vllm(venv, base), base)
    for source in sorted(venvs.glob("sglang-*")):
        if BASES[base].model_type in SGLANG:
            yield from _rows("sglang", _sglang(source, base), base)
    for target, library in zip(WAYS, ("transformers", "peft"), strict=True):
        answers = {
            recipe: answer(target, served_base(base), served_adapter(recipe, base)) for recipe in recipes_on(base)
        }
        yield from _rows(target, (version(library), answers), base)


def _rows(target: str, answered: tuple[str, dict[str, Answer]], base: str) -> Iterator[Row]:
    release, answers = answered
    for recipe, found in answers.items():
        yield Row(target, release, base, recipe, *_outcome(served_adapter(recipe, base).parent, found))


def _outcome(directory: Path, found: Answer) -> tuple[str, str, str]:
    if isinstance(found, str):
        return "refused", "", " ".join(found.replace(str(directory), "").split())[:160]
    with np.load(directory / "logits.npz") as reference:
        if "peft" not in reference:  # nothing to compare with: it was served all the same
            return "silent", "", ""
        peft, base = reference["peft"], reference["base"]
        ratio = max(_kl(peft, found) / _kl(peft, base), 0.0)
    return ("exact" if ratio <= EXACT else "silent"), f"{ratio:.1e}", ""


def _kl(p: Logits, q: Logits) -> float:
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def _job(
    script: str, python: Path, base: str, more: dict[str, object]
) -> tuple[dict[str, str], str, dict[str, Logits]]:
    """What each adapter was refused with, the version, and the arrays that a script wrote."""
    with TemporaryDirectory() as scratch:
        output, job = Path(scratch) / "output.npz", Path(scratch) / "job.json"
        adapters = {recipe: str(served_adapter(recipe, base)) for recipe in recipes_on(base)}
        data = {"base": str(served_base(base)), "adapters": adapters, "output": str(output), **more}
        job.write_text(json.dumps(data), encoding="utf-8")
        ran = subprocess.run([python, HERE / script, job], capture_output=True, text=True, timeout=900, check=False)
        if ran.returncode:
            sys.exit(f"{script} on {base}: {ran.stderr[-3000:]}")
        told = json.loads(ran.stdout.splitlines()[-1])
        with np.load(output) as arrays:
            return told["refused"], told["version"], dict(arrays)


def _vllm(venv: Path, base: str) -> tuple[str, dict[str, Answer]]:
    refused, release, arrays = _job("vllm_engine.py", venv / "bin" / "python", base, {"tokens": TOKENS})
    return release, {recipe: refused.get(recipe, arrays.get(recipe, "")) for recipe in recipes_on(base)}


def _sglang(source: Path, base: str) -> tuple[str, dict[str, Answer]]:
    refused, release, arrays = _job("sglang_loader.py", Path(sys.executable), base, {"source": str(source)})
    return release, {
        recipe: refused[recipe] if recipe in refused else _with_deltas(base, recipe, arrays)
        for recipe in recipes_on(base)
    }


def _with_deltas(base: str, recipe: str, arrays: dict[str, Logits]) -> Logits:
    """What the base says with the deltas that lie in the server's buffers."""
    model = load(served_base(base))
    if BASES[base].tied:
        untie(model)  # its wrapped head has a delta of its own
    with torch.no_grad():
        for key, delta in arrays.items():
            name, _, module = key.partition("/")
            if name == recipe and module:
                model.get_submodule(module).get_parameter("weight").add_(torch.from_numpy(delta))
    return log_probabilities(model).numpy()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
