"""From a Hugging Face directory and an adapter to Q4_K_M: one command, beside the three that it takes otherwise.

    python -m benchmarks.quantize [SHAPE]

The others: PEFT's merge saved as F16, convert_hf_to_gguf.py (.venv/llama.cpp) without the vocabulary, which it can't
read without sentencepiece, and llama_model_quantize with one thread (llama-cpp-python). CPU and peak memory as bench.py
counts them, one run each; the model is SmolLM2-135M, its adapter one on all linear layers. A run of ours before them
isn't compared: in the first one Python compiles our modules, as pip does those that it installs.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bench import BIN, Cost, run
from benchmarks.merge_rate import SHAPES, make_adapter, make_base
from tools.llama_cpp_sources import sources

_PREPARE = """
from fixtures.real import SMOLLM2
from fixtures.train import trained_adapter
print(trained_adapter("plain", SMOLLM2), SMOLLM2.hf, sep="\\n")
"""
_MERGE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
adapter, base, output = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16), adapter)
model.merge_and_unload().save_pretrained(output)
AutoTokenizer.from_pretrained(base).save_pretrained(output)
"""
_CONVERT = """
import sys
from pathlib import Path
from tools.llama_cpp_sources import Job, convert
sys.exit("".join(convert([Job(*map(Path, sys.argv[1:]), "MOSTLY_F16")]).values()) or 0)
"""
_QUANTIZE = """
import ctypes, sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, 1
source, target = (name.encode() for name in sys.argv[1:])
sys.exit(llama_cpp.llama_model_quantize(source, target, ctypes.byref(params)))
"""


def main(arguments: Sequence[str]) -> int:
    if sources() is None:
        raise SystemExit("no sources of llama.cpp: see tools/llama_cpp_sources.py")
    with TemporaryDirectory(prefix="bench-", dir=".") as folder:
        adapter, base = _random(arguments[0], Path(folder)) if arguments else _smollm2()
        merged, f16, target = Path(folder, "merged"), Path(folder, "f16.gguf"), Path(folder, "q4_k_m.gguf")
        python: list[str | Path] = [sys.executable]
        steps: dict[str, list[str | Path]] = {
            "PEFT's merge": [*python, "-c", _MERGE, adapter, base, merged],
            "convert_hf_to_gguf.py": [*python, "-c", _CONVERT, merged, f16],
            "llama_model_quantize": [*python, "-c", _QUANTIZE, f16, target],
        }
        options = ["--quantize", "Q4_K_M", "--least-kept", "0"]
        ours: list[str | Path] = [BIN / "adapter-to-gguf", adapter, "--base", base, *options]
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what pip installs has its bytecode, and so have theirs
        first = run([*ours, "-o", Path(folder, "first.gguf")], 0)
        found = {name: run(command, 0) for name, command in steps.items()}
        found["adapter-to-gguf --quantize"] = run([*ours, "-o", Path(folder, "ours.gguf")], 0)
    _print(found)
    print(f"the first run of ours on a machine, or a later one: {first.cpu:.1f} s CPU, {first.memory:.0f} MB")
    return 0


# Both in processes of their own: Linux counts a parent's memory at the fork as the child's.


def _smollm2() -> tuple[Path, Path]:
    prepared = subprocess.run([sys.executable, "-c", _PREPARE], check=True, stdout=subprocess.PIPE, text=True)
    adapter, base = map(Path, prepared.stdout.splitlines()[-2:])
    return adapter, base


def _random(shape: str, folder: Path) -> tuple[Path, Path]:
    adapter, base = folder / "adapter", folder / "base"
    with ProcessPoolExecutor(1, get_context("spawn")) as maker:
        maker.submit(make_base, base, SHAPES[shape], sparse=False).result()
        maker.submit(make_adapter, adapter, SHAPES[shape]).result()
    return adapter, base


def _print(found: dict[str, Cost]) -> None:
    for name, cost in found.items():
        print(f"{name:<28} {cost.cpu:6.1f} s CPU  {cost.memory:6.0f} MB")
    *others, ours = found.values()
    cpu, memory = sum(cost.cpu for cost in others), max(cost.memory for cost in others)
    print(f"ours beside theirs: {ours.cpu / cpu:.3f} of the CPU, {ours.memory / memory:.3f} of the memory")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
