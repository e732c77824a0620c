"""docs/architectures.md, from the tables, from what the tests hold of each, and from what was measured of others.

python -m tools.architectures_page      writes it, and the number of architectures into README.md
"""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

from converter.architectures import (
    MODEL_TYPES,
    NAMES,
    TABLES,
    WITH_EXPERTS,
    Architecture,
    Place,
    _load,
    architecture_of_table,
)
from fixtures.more_models import KINDS, WANTING_A_HEAD
from fixtures.tiny import UNTIED_FOR_GOOD
from tools import tiny_results

_ROOT: Final = Path(__file__).parent.parent
PAGE: Final = _ROOT / "docs" / "architectures.md"
README: Final = _ROOT / "README.md"
_DATA: Final = Path(__file__).parent / "data"
# The model_type of measured models that are called otherwise.
_MEASURED: Final = {
    "command-r": "cohere",
    "falcon_h1_mup": "falcon_h1",
    "gemma3_mm": "gemma3",
    "gemma4_31b": "gemma4",
    "gemma4_moe": "gemma4",
    "granitehybrid_dense": "granitemoehybrid",
    "mistral3_ministral": "ministral3",
}
_SCRIPT: Final = "convert_lora_to_gguf.py"
_MERGE: Final = "PEFT's merge, convert_hf_to_gguf.py"
# Those that most people tune, by their tables; README names the others.
_IN_README: Final = {
    "llama": "Llama 2 to 3.3, SmolLM 1, 2",
    "mistral": "Mistral 7B",
    "ministral3": "Ministral 3",
    "gemma": "Gemma 1",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3",
    "gemma4": "Gemma 4",
    "qwen2": "Qwen 2, 2.5",
    "qwen3": "Qwen 3",
    "qwen35": "Qwen 3.5, 3.6",
    "qwen35moe": "Qwen 3.5, 3.6 with experts",
    "gpt-oss": "gpt-oss",
    "phi3": "Phi 3, 4",
    "glm4moe": "GLM 4.5 to 4.7",
    "lfm2": "LFM2",
}
_BLOCK: Final = re.compile(r"(?<=<!-- architectures -->\n).*?(?=<!-- /architectures -->)", re.DOTALL)
_HOSTED: Final = ("gemma", "gemma2")  # whose heads other graphs of llama.cpp compute


class Outcome(NamedTuple):
    """What a road makes of an adapter: the share of its effect that is left undone, ``fail`` or ``X``."""

    value: str

    def __str__(self) -> str:
        if self.value == "fail":
            return "fails"
        if self.value == "X":
            return "not loaded"
        return "exact" if float(self.value) <= 2e-5 else f"**{float(self.value):.2g} undone**"


class Row(NamedTuple):
    """A measured model: its adapters by convert_lora_to_gguf.py, and merged by PEFT and convert_hf_to_gguf.py."""

    model: str
    table: str
    lora: Mapping[str, Outcome]
    merged: Mapping[str, Outcome]
    is_computed: bool  # by llama.cpp as by transformers


def page() -> str:
    """The document."""
    lines, surveyed = _read("ranked.tsv"), tiny_results.read()
    text = Template((_DATA / "architectures.md").read_text(encoding="utf-8"))
    return text.substitute(
        n_architectures=n_architectures(),
        tables="\n".join(_tables()),
        n_lines=len(lines),
        n_served=sum(not _lacking(line) for line in lines),
        ranked="\n".join(_ranked(lines)),
        n_surveyed=len({row.model for row in surveyed}),
        surveyed="\n".join(_surveyed()),
        counts="\n".join(f"- {line}" for line in tiny_results.counts(surveyed)),
    )


def n_architectures() -> str:
    """How README says how many there are."""
    return f"{len(NAMES)} graphs of llama.cpp, {len(TABLES)} model families"


def readme() -> str:
    """README.md with that number, and its table of some architectures."""
    text = README.read_text(encoding="utf-8")
    text = _BLOCK.sub(lambda _: "\n".join(_of_readme()) + "\n", text)
    return re.sub(r"\d+ graphs of llama\.cpp, \d+ model families", n_architectures(), text)


def _of_readme() -> Iterator[str]:
    yield _cells("", "all-linear LoRA", "experts", "LoRA on the head of a tied base", "from a directory", _SCRIPT)
    yield _cells(*["---"] * 6)
    measured = _by_table()
    for table, models in _IN_README.items():
        architecture = _load(table)
        head = "exact, never tied" if "wanted" in _head_of(table, architecture) else "exact with `--untie`"
        directory = "no" if architecture.metadata.only_copied else "yes"
        yield _cells(
            models, _all_linear(table), _experts(architecture), head, directory, _theirs(measured.get(table, []))
        )


def _tables() -> Iterator[str]:
    yield _cells("table (graph)", "model_type", "directory", "all-linear LoRA", "experts", "head", "ignored", _SCRIPT)
    yield _cells(*["---"] * 8)
    by_table = _by_table()
    for table in TABLES:
        yield _line(table, _load(table), by_table.get(table, []))


def _by_table() -> dict[str, list[Row]]:
    by_table: dict[str, list[Row]] = {}
    for row in _incumbents():
        by_table.setdefault(row.table, []).append(row)
    return by_table


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _line(table: str, architecture: Architecture, measured: list[Row]) -> str:
    graph = architecture_of_table(table)
    name = table if graph == table else f"{table} ({graph})"
    types = ", ".join(model_type for model_type, of in MODEL_TYPES.items() if of == table)
    only = architecture.metadata.only_copied
    return _cells(
        name,
        types,
        f"no: {only}" if only else "yes",
        _all_linear(table),
        _experts(architecture),
        _head_of(table, architecture),
        ", ".join(dict.fromkeys(_short(place) for place in _ignored(architecture))),
        _theirs(measured),
    )


def _kinds(table: str) -> list[str]:
    """The tiny models of a table, as fixtures call them."""
    return [name for name, kind in KINDS.items() if MODEL_TYPES.get(kind.model_type) == table]


def _all_linear(table: str) -> str:
    refused = {name: KINDS[name].lora_refused for name in _kinds(table)}
    if any(KINDS[name].directory_only for name in _kinds(table)):
        return "exact from a directory, whose GGUF doesn't say its multipliers (BM049)"
    if not any(refused.values()):
        return "exact"
    codes = ", ".join(sorted({code for code in refused.values() if code}))
    return f"{codes}; merged exact" if all(refused.values()) else f"exact; {codes} where an ignored matrix is touched"


def _experts(architecture: Architecture) -> str:
    stacks = [place for places in architecture.modules.values() for place in places if place.tensor.endswith("_exps")]
    if not stacks:
        return ""
    return "exact" if all(place.lora for place in stacks) else "exact merged"


def _head_of(table: str, architecture: Architecture) -> str:
    if not architecture.graph.reads_output:
        return "none; [hosts](hosts.md)" if table in _HOSTED else "none"
    return "wanted" if table in {*WANTING_A_HEAD, *UNTIED_FOR_GOOD} else "own"


def _ignored(architecture: Architecture) -> Iterator[Place]:
    for places in architecture.modules.values():
        yield from (place for place in places if not place.lora and len(place.shape) > 1)


def _short(place: Place) -> str:
    return place.tensor.removeprefix("blk.{i}.")


def _theirs(measured: list[Row]) -> str:
    """The outcomes of each adapter, of several models where they differ."""
    computed = [row for row in measured if row.is_computed]
    if measured and not computed:
        return "no telling: llama.cpp computes another base"
    said = []
    for adapter in ("all-linear", "head", "experts"):
        outcomes = dict.fromkeys(str(row.lora[adapter]) for row in computed if adapter in row.lora)
        if outcomes:
            said.append(f"{adapter}: {' or '.join(outcomes)}")
    return "; ".join(said)


# --- What others make of it -------------------------------------------------------------------------------------------


def _read(name: str) -> list[dict[str, str]]:
    lines = (_DATA / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader((line for line in lines if not line.startswith("#")), delimiter="\t"))


def _incumbents() -> list[Row]:
    rows: dict[str, Row] = {}
    for line in _read("incumbents.tsv"):
        model = line["model"]
        table = model if model in WITH_EXPERTS.values() else MODEL_TYPES.get(_MEASURED.get(model, model), "")
        row = rows.setdefault(line["model"], Row(line["model"], table, {}, {}, _is_computed(line["base"])))
        lora = {**row.lora, line["adapter"]: Outcome(line["convert_lora_to_gguf"])}
        rows[line["model"]] = row._replace(lora=lora, merged={**row.merged, line["adapter"]: Outcome(line["merged"])})
    return list(rows.values())


def _is_computed(base: str) -> bool:
    return base in {"X", "noconv"} or float(base) < 1e-2


def _ranked(lines: list[dict[str, str]]) -> Iterator[str]:
    yield _cells("#", "models", "here", _SCRIPT, _MERGE)
    yield _cells(*["---"] * 5)
    for line in lines:
        yield _cells(line["rank"], line["models"], _here(line), line["convert_lora_to_gguf"], line["merged"])


def _lacking(line: Mapping[str, str]) -> list[str]:
    return [table for table in line["tables"].split() if table not in TABLES]


def _here(line: Mapping[str, str]) -> str:
    lacking = _lacking(line)
    there = [table for table in line["tables"].split() if table in TABLES]
    said = dict.fromkeys(_of_line(table) for table in there)
    return "; ".join([*said, *(f"{table}: BM003" for table in lacking)])


def _of_line(table: str) -> str:
    from_gguf = " (model from a GGUF)" if _load(table).metadata.only_copied else ""
    return f"LoRA and model {_all_linear(table)}{from_gguf}"


def _surveyed() -> Iterator[str]:
    """A line for each tiny model: here, and by others."""
    yield _cells("model", "--to lora", "--to model", _SCRIPT, _MERGE)
    yield _cells(*["---"] * 5)
    incumbents = {row.model: row for row in _incumbents()}
    by_model: dict[str, list[tiny_results.Row]] = {}
    for row in tiny_results.read():
        by_model.setdefault(row.model, []).append(row)
    for model, rows in by_model.items():
        theirs = incumbents[model]
        here = (_same({row.adapter: _road(row, to) for row in rows}) for to in tiny_results.KINDS)
        yield _cells(_surveyed_name(rows[0]), *here, *(_said(theirs, by) for by in (theirs.lora, theirs.merged)))


def _surveyed_name(row: tiny_results.Row) -> str:
    if row.base in {tiny_results.NOT_CONVERTED, tiny_results.NOT_LOADED}:
        return f"{row.model} (base {row.base} by llama.cpp)"
    return row.model if row.is_computed else f"{row.model} (llama.cpp computes another base: {row.base})"


def _said(theirs: Row, outcomes: Mapping[str, Outcome]) -> str:
    if not theirs.is_computed:
        return "no telling"
    return _same({adapter: str(outcome) for adapter, outcome in outcomes.items()})


def _same(by_adapter: Mapping[str, str]) -> str:
    """What is said of each adapter, once where it is the same."""
    if len(set(by_adapter.values())) == 1:
        return next(iter(by_adapter.values()))
    return "; ".join(f"{adapter}: {said}" for adapter, said in by_adapter.items() if said)


def _road(row: tiny_results.Row, to: tiny_results.To) -> str:
    """A deployment of an adapter over both bases."""
    said = {base: _verdict(row, f"{base}_{to}") for base in tiny_results.BASES[to]}
    bases: dict[str, list[str]] = {}
    for base, verdict in said.items():
        if verdict:
            bases.setdefault(verdict, []).append(tiny_results.SAID[base])
    if len(bases) < 2:
        return next(iter(bases), row.effect if row.effect.startswith("PEFT") else "")
    return ", ".join(f"{verdict} {' and '.join(of)}" for verdict, of in bases.items())


def _verdict(row: tiny_results.Row, road: str) -> str:
    verdict = row.verdict(road)
    return {"refused": row.cells[road], "wrong": f"**{row.cells[road]} undone**"}.get(verdict, verdict)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(readme(), encoding="utf-8")
