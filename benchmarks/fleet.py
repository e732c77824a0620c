"""1,000 LoRAs of rank 2 over three real bases through adapter-fleet: `python -m benchmarks.fleet DIRECTORY [COUNT]`.

The bases are SmolLM2-135M as packaged (Q8_0) and in BF16, and Gemma 3 270M as packaged (Q4_K_M). Printed are adapters a
second, the memory of each process at a tenth and at the end of the run, how often each base was read, and how long a
run takes that has nothing to do. It writes 2.5 MB for each adapter, and as much again for its output.
"""

import csv
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
import psutil

from converter import read_base
from converter.derive.base_model import BaseModel
from fixtures.generated import adapter_config, write_safetensors
from fixtures.real import GEMMA3, SMOLLM2

RANK = 2
N_WORKERS = 2


def bases() -> Mapping[str, Path]:
    return {
        "smollm2-q8_0": SMOLLM2.packaged_gguf,
        "smollm2-bf16": SMOLLM2.bf16_gguf,
        "gemma3-q4_k_m": GEMMA3.packaged_gguf,
    }


def write_adapter(directory: Path, base: BaseModel, seed: int) -> None:
    """All linears of the layers, with small random factors."""
    modules = [module for module in base.matrices(with_experts=False) if ".layers." in module]
    rng = np.random.default_rng(seed)
    tensors = {}
    for module in modules:
        n_out, n_in = base.shape(module) or ()
        for factor, shape in (("lora_A", (RANK, n_in)), ("lora_B", (n_out, RANK))):
            values = rng.normal(0, 0.02, shape).astype("<f4")
            tensors[f"base_model.model.{module}.{factor}.weight"] = ("F32", shape, values.tobytes())
    directory.mkdir(parents=True)
    write_safetensors(directory / "adapter_model.safetensors", tensors, {"format": "pt"})
    targets = sorted({module.rpartition(".")[2] for module in modules})
    config = adapter_config(targets, r=RANK, base_model_name_or_path="me/base")
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_fleet(top: Path, count: int) -> Path:
    read = {name: read_base(path) for name, path in bases().items()}
    with (top / "fleet.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("adapter", "base", "output"))
        for number, (name, base) in zip(range(count), cycle(read.items()), strict=False):
            if not (top / f"a{number}").exists():
                write_adapter(top / f"a{number}", base, number)
            rows.writerow((f"a{number}", base.path, f"out/{name}/a{number}.gguf"))
    return top / "fleet.csv"


def memory(root: int) -> Iterator[tuple[str, int]]:
    """Megabytes of their own that the driver, the workers, and all else of Ray's have."""
    for process in (parent := psutil.Process(root), *parent.children(recursive=True)):
        try:
            name = "driver" if process.pid == root else process.cmdline()[0].partition(":_")[0]
            yield ("worker" if name in {"ray:", "ray::IDLE"} else name), process.memory_full_info().uss >> 20
        except (psutil.Error, IndexError):
            continue


def run(manifest: Path) -> None:
    command = [sys.executable, "-m", "converter", "fleet", str(manifest), "--workers", str(N_WORKERS)]
    table = manifest.with_suffix(".sqlite")
    begin, told = time.monotonic(), 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(0.5)
            done = n_done(table)
            if done >= told:
                told = done + 200
                sizes: dict[str, list[int]] = {}
                for name, size in memory(process.pid):
                    sizes.setdefault(name, []).append(size)
                own = f"driver {sizes.get('driver')}, workers {sizes.get('worker')} MB"
                print(f"{time.monotonic() - begin:5.0f} s  {done:5}  {own}", flush=True)
    print(f"{time.monotonic() - begin:.1f} s in all")


def n_done(table: Path) -> int:
    try:
        with sqlite3.connect(f"file:{table}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM adapters").fetchone()[0])
    except sqlite3.Error:
        return 0


def main() -> None:
    top, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    top.mkdir(parents=True, exist_ok=True)
    manifest = write_fleet(top, count)
    run(manifest)
    with sqlite3.connect(manifest.with_suffix(".sqlite")) as connection:
        seconds = "(julianday(max(at)) - julianday(min(at))) * 86400"
        (n, span, work) = connection.execute(f"SELECT count(*), {seconds}, sum(seconds) FROM adapters").fetchone()  # noqa: S608
        print(f"{n} adapters in {span:.1f} s: {n / span:.1f} a second; {1000 * work / n:.0f} ms of a worker each")
        for base, node, took in connection.execute("SELECT base, node, seconds FROM bases"):
            print(f"read {Path(base).name} on {node} in {took:.2f} s")
    run(manifest)


if __name__ == "__main__":
    main()
