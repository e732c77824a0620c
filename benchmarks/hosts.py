"""What it costs to untie a model of Gemma-2B's size: CPU per output byte and peak memory, beside ``cp``.

The base is a random Hugging Face checkpoint, BF16, 5 GB in six shards, with the tokenizer of Gemma 3 270M and as many
rows; the adapter is all-linear and lm_head, rank 16. PEFT's merge and convert_hf_to_gguf.py together take 54 s of CPU
for 887 MB of output, measured on Gemma 3 270M; the limit is a fifth of that for each byte.
``python -m benchmarks.hosts [DIRECTORY]`` (`make bench-hosts`); 18 GB of disk.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.bench import BIN, run
from converter.verification.llama_cpp import LlamaCpp

HOSTS = ("gemma3", "spark2_5", "wide")
CPU_PER_GB = 54 / 0.887 / 5
MEMORY_MB = 1500.0
N_VOCAB = 262144  # Gemma 3's

# In a child: Linux counts a parent's memory at the fork as the child's.
_PREPARE = f"""
import shutil
import sys
from pathlib import Path
from fixtures.generated import write_gemma_2b_checkpoint, write_gemma_2b_head_adapter
from fixtures.real import GEMMA3

base, adapter = map(Path, sys.argv[1:])
adapter.mkdir()
write_gemma_2b_head_adapter(adapter, {N_VOCAB})
write_gemma_2b_checkpoint(base, {N_VOCAB})
for file in GEMMA3.hf.glob("tokenizer*.json"):
    shutil.copy(file, base)
"""


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
    with TemporaryDirectory(prefix="hosts-", dir=root) as scratch:
        base, adapter, output = (Path(scratch, name) for name in ("base", "adapter", "model.gguf"))
        subprocess.run([sys.executable, "-c", _PREPARE, base, adapter], check=True)
        failed = [host for host in HOSTS if not _fits(host, base, adapter, output)]
    return int(bool(failed))


def _fits(host: str, base: Path, adapter: Path, output: Path) -> bool:
    untie: list[Path | str] = [BIN / "adapter-to-gguf", adapter, "--base", base, "--untie", "--host", host]
    cost = run([*untie, "-o", output], 0)
    copy = run([shutil.which("cp") or "cp", output, output.with_suffix(".copy")], 0)
    gigabytes = output.stat().st_size / 1e9
    runs = _decodes(output)
    print(
        f"{host:<9} {gigabytes:.2f} GB  CPU {cost.cpu:.1f} s, {cost.cpu / gigabytes:.2f} s/GB of {CPU_PER_GB:.1f}  "
        f"{cost.memory:.0f} MB of {MEMORY_MB:.0f}  cp {copy.cpu:.1f} s  {'decodes' if runs else 'DOES NOT DECODE'}",
        flush=True,
    )
    output.unlink()
    output.with_suffix(".copy").unlink()
    return runs and cost.cpu / gigabytes <= CPU_PER_GB and cost.memory <= MEMORY_MB


def _decodes(model: Path) -> bool:
    """Whether llama.cpp loads the model and its logits are numbers."""
    with LlamaCpp() as llama:
        (logits,) = llama.logits(model, [[2, 1000, 2000, 3000]])
    return logits.shape == (4, N_VOCAB) and bool(np.isfinite(logits).all())


if __name__ == "__main__":
    sys.exit(main())
