"""84 tiny models in real llama.cpp: what becomes of PEFT adapters on each, by adapter-to-gguf, over both kinds of base.

    python -m tools.tiny_models                 measures what isn't measured yet, into tools/data/tiny_models.tsv
    python -m tools.tiny_models --only NAME     measures this one again; may be given several times
    python -m tools.tiny_models --again         measures all again; with --only, these

Bases are the model's directory, and the GGUF that llama.cpp's own converter makes of it, with --checkpoint where it has
no table. What is written goes through real llama.cpp beside PEFT. Each model has a process of its own, whose end is a
result; a run that is stopped goes on where it was.
"""

import argparse
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import numpy as np

from converter import Deployment, Refused, convert, read_adapter, read_base
from converter.errors import ConverterError
from converter.read.gguf_header import read_gguf_header
from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed
from fixtures.measure import kl
from fixtures.survey import SURVEY
from tools.llama_cpp_sources import Job
from tools.llama_cpp_sources import convert as convert_by_llama_cpp
from tools.tiny_adapters import SEQUENCES, Built, Logits, built
from tools.tiny_results import (
    BASES,
    CRASH,
    KINDS,
    NOT_CONVERTED,
    NOT_LOADED,
    ROADS,
    Base,
    Row,
    To,
    counts,
    failures,
    read,
    write,
)

_AT_ONCE: Final = 28  # models that llama.cpp's converter gets: it stops after ten minutes


def main(arguments: Sequence[str]) -> int:
    """Measure, and print how many are exact; status 1 where one is wrong."""
    options = _options(arguments)
    names = options.only or _left(again=options.again)
    kept = [row for row in read() if row.model not in names]
    for rows in _measured(names):
        kept += rows
        write(kept)
    print(*counts(kept), *failures(kept), sep="\n")
    return int(any(row.verdict(road) in {"wrong", "crash"} for row in kept for road in ROADS))


def _left(*, again: bool) -> list[str]:
    """The models that aren't measured yet, or all."""
    known = set() if again else {row.model for row in read()}
    return [name for name in SURVEY if name not in known]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tools.tiny_models")
    parser.add_argument("--only", action="append", choices=SURVEY, metavar="NAME")
    parser.add_argument("--again", action="store_true")
    return parser.parse_args(arguments)


def _measured(names: Sequence[str]) -> Iterator[list[Row]]:
    """The rows of each model. Raises FileNotFoundError where llama.cpp's sources are missing."""
    for done, name in enumerate(names, start=1):
        started = time.monotonic()
        _in_a_process(_build, name)
        print(f"built {done}/{len(names)} {name} {time.monotonic() - started:.0f} s", flush=True)
    for begin in range(0, len(names), _AT_ONCE):
        convert_bases(names[begin : begin + _AT_ONCE])
    for done, name in enumerate(names, start=1):
        rows = _in_a_process(measure, name) or [Row(name, CRASH, "", "", dict.fromkeys(ROADS, CRASH))]
        print(f"measured {done}/{len(names)} {name}", *map(_line, rows), sep="\n  ", flush=True)
        yield rows


def _line(row: Row) -> str:
    cells = ", ".join(f"{road} {cell or '-'}" for road, cell in row.cells.items())
    return f"{row.adapter} (base {row.base}, effect {row.effect}): {cells}"


# --- A process for each model -----------------------------------------------------------------------------------------

_CONTEXT: Final = multiprocessing.get_context("forkserver")  # which has torch before it forks
_CONTEXT.set_forkserver_preload(["tools.tiny_adapters"])
_SECONDS: Final = 900


def _in_a_process(do: Callable[[str], list[Row] | None], name: str) -> list[Row] | None:
    """What it returns; None where the process died, or didn't end."""
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_send, args=(sender, do, name), daemon=False)
    process.start()
    sender.close()
    try:
        rows: list[Row] | None = receiver.recv() if receiver.poll(_SECONDS) else None
    except EOFError:
        rows = None
    process.join(timeout=10)
    process.kill()
    return rows


def _send(sender: Connection, do: Callable[[str], list[Row] | None], name: str) -> None:
    sender.send(do(name))


def _build(name: str) -> None:
    built(SURVEY[name])


def convert_bases(names: Iterable[str]) -> None:
    """Make the GGUFs that aren't there by llama.cpp's own converter, as far as it can."""
    wanted = [(SURVEY[name], built(SURVEY[name])) for name in names]
    jobs = [
        Job(model.hf, _gguf(model).with_suffix(".part"), as_stated=None in it.saved.values())
        for it, model in wanted
        if not _gguf(model).is_file()
    ]
    failed = convert_by_llama_cpp(jobs) if jobs else {}
    for job in jobs:
        if job.gguf not in failed:
            job.gguf.rename(job.gguf.with_suffix(".gguf"))
    for path, error in failed.items():
        print(f"llama.cpp's converter makes nothing of {path.stem}: {error.splitlines()[-1]}", flush=True)


def _gguf(model: Built) -> Path:
    return model.directory.with_name(f"{model.directory.name}.gguf")


# --- One model --------------------------------------------------------------------------------------------------------


class _Bases(NamedTuple):
    """A model as a directory and as a GGUF, what runs it, and where files may be written."""

    model: Built
    gguf: Path
    text_only: bool
    llama_cpp: LlamaCpp
    folder: Path


def measure(name: str) -> list[Row]:
    """A row for each adapter of the model."""
    model = built(SURVEY[name])
    with LlamaCpp(timeout=120) as llama_cpp, TemporaryDirectory() as folder:
        base = _Bases(model, _gguf(model), SURVEY[name].is_wrapped, llama_cpp, Path(folder))
        said = _base_cell(base)
        return [_row(name, said, base, adapter, failed) for adapter, failed in model.adapters.items()]


def _base_cell(base: _Bases) -> str:
    if not base.gguf.is_file():
        return NOT_CONVERTED
    try:
        return f"{kl(base.model.logits(), _logits(base, base.gguf)):.0e}"
    except LlamaCppFailed:
        return NOT_LOADED


def _row(name: str, said: str, base: _Bases, adapter: str, failed: str) -> Row:
    if failed:
        return Row(name, said, adapter, f"PEFT: {failed.partition(':')[0]}", dict.fromkeys(ROADS, ""))
    effect = kl(base.model.logits(adapter), base.model.logits())
    cells = {f"{of}_{to}": _cell(base, adapter, of, to) for to in KINDS for of in BASES[to]}
    return Row(name, said, adapter, f"{effect:.0e}", cells)


def _cell(base: _Bases, adapter: str, of: Base, to: To) -> str:
    """What becomes of an adapter by one road; nothing where the base isn't there, or needs no checkpoint."""
    if not base.gguf.is_file() and (of != "directory" or to == "lora"):
        return ""
    if of == "checkpoint" and read_base(base.gguf).architecture:
        return ""
    untie = base.model.is_tied and adapter == "head"
    output = base.folder / f"{adapter}-{of}-{to}"
    try:
        checkpoint = base.model.hf if of == "checkpoint" else None
        over = read_base(base.model.hf if of == "directory" else base.gguf, checkpoint=checkpoint)
        read = read_adapter(base.model.adapter(adapter), text_only=base.text_only)
        convert(read, output, base=over, deployment=Deployment(to, untie=untie))
    except Refused as refused:
        return ", ".join(sorted({finding.code for finding in refused.report.stopping}))
    except ConverterError as error:
        return f"status {error.status}: {str(error).splitlines()[0]}"
    except Exception as error:  # noqa: BLE001  any fault of ours is that cell's result
        traceback.print_exc()
        return f"{CRASH} {type(error).__name__}"
    return _served(base, adapter, output, to)


def _served(base: _Bases, adapter: str, output: Path, to: To) -> str:
    """The share of the adapter's effect that real llama.cpp leaves undone, in as much text as the file is for.

    A host of another graph may be for no more than a window.
    """
    if to == "model":
        model, lora = output, None
    elif output.is_dir():
        model, lora = output / "untied-base.gguf", output / "lora.gguf"
    else:
        model, lora = base.gguf, output
    without, peft = base.model.logits(), base.model.logits(adapter)
    n = min(_context(model), without.shape[1])
    try:
        found = _logits(base, model, lora, n)
        return f"{kl(peft[:, :n], found) / kl(peft[:, :n], without[:, :n]):.0e}"
    except LlamaCppFailed as failed:
        print(f"{output.name}: {failed}", file=sys.stderr)
        return NOT_LOADED


def _context(model: Path) -> int:
    """How many tokens a GGUF says it is for."""
    kv = read_gguf_header(model).kv
    return int(str(kv[f"{kv['general.architecture']}.context_length"]))


def _logits(base: _Bases, model: Path, lora: Path | None = None, n: int | None = None) -> Logits:
    sequences = [sequence[:n] for sequence in SEQUENCES]
    logits: Logits = np.stack(base.llama_cpp.logits(model, sequences, lora))
    return logits


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
