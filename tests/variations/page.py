"""docs/variations.md: the table's outcomes as a page."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, get_args

from converter.diagnostics import OPTIONS, Kind
from fixtures.variation import BASES, Variation, names_of
from fixtures.variations import GROUPS
from fixtures.variations.incumbents import INCUMBENTS

PAGE = Path(__file__).parents[2] / "docs" / "variations.md"
KINDS: tuple[Kind, ...] = get_args(Kind)

Outcome: TypeAlias = float | str | None  # effect ratio, code, or that it did not run
Outcomes: TypeAlias = dict[tuple[str, str, Kind], Outcome]
_Found: TypeAlias = Mapping[tuple[str, str, Kind], Outcome]
_Row: TypeAlias = tuple[str, ...]

_INTRO = """\
# What becomes of each PEFT variation

Written by `UPDATE_VARIATIONS=1 make variations`, which converts a real PEFT adapter of each variation on a tiny model
of each architecture and runs the result in real llama.cpp. There are two outcomes and no third.

- A number: the deployment is **exact**. It is the effect ratio KL(PEFT, deployed) / KL(PEFT, base), F32 outputs against
  PEFT's logits at the moment of saving: 0 is PEFT, 1 is an adapter that does nothing. At most 1e-4 is asked; what is
  left is the noise of two programs (1e-12 in Llama and Qwen, 1e-7 in Gemma and GPT-2). Every tensor of the output is
  also compared with PEFT's weights in float64, and every key and config field of the adapter is in the ledger.
- A code: the deployment is **refused** before the first byte. `adapter-to-gguf` ends with status 1 and writes no file,
  `adapter-check` shows the same code, and [rules.md](rules.md) says why and what to do.
- A dash: the architecture can't have this variation; below the table it says why.

All bases have tied ends, but for *llama untied*. Untied, Gemma 1 and 2 are served as the architectures that
[hosts.md](hosts.md) names. Deployments that fare alike share a row, with the largest of their ratios.

The last two columns are what convert_lora_to_gguf.py (llama.cpp 0c1e57098, its file served by the same llama.cpp) and
PEFT's merge_and_unload (0.21.2, the merged model saved and loaded again) make of the same adapter on the base as it is,
measured on llama where it can have the variation, biases on qwen2: "wrong" is an effect ratio above 1e-4 that ended
with exit status 0.

What nobody can know: a LoRA alone, on another base of the same shapes, says nothing of the base it belongs to. That is
found out where training noted the base down, where the adapter names it, and by DoRA's magnitudes or a saved base
layer.
"""


def render(outcomes: _Found) -> str:
    """The page."""
    sections = [_section(title, variations, outcomes) for title, variations in GROUPS.items()]
    page = "\n".join([_INTRO, *sections])
    codes = sorted(set(re.findall(r"\[([A-Z]{2}\d{3})\]", page)))
    return "\n".join([page, *(f"[{code}]: rules.md#{code.lower()}" for code in codes), ""])


def without_numbers(page: str) -> str:
    """The page with every effect ratio as one word: machines differ in the last digits."""
    return re.sub(r"(?<=\| )\d(\.\d)?(e-\d+)?(?= \|)", "exact", page)


def _section(title: str, variations: tuple[Variation, ...], outcomes: _Found) -> str:
    header: _Row = ("variation", "deployment", *BASES, "convert_lora_to_gguf.py", "PEFT's merge")
    rows = [row for variation in variations for row in _rows(variation, outcomes)]
    lines = [_line(row) for row in (header, ("---",) * len(header), *rows)]
    return "\n".join([f"## {title}", "", *lines, "", *_reasons(variations)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rows(variation: Variation, outcomes: _Found) -> Iterator[_Row]:
    """A row for each set of deployments that fare alike."""
    by_pattern: dict[tuple[str, ...], list[Kind]] = {}
    for kind in KINDS:
        found = (outcomes.get((variation.name, column, kind)) for column in BASES)
        by_pattern.setdefault(tuple("exact" if isinstance(it, float) else str(it) for it in found), []).append(kind)
    for n, kinds in enumerate(by_pattern.values()):
        cells = tuple(_worst(variation, column, kinds, outcomes) for column in BASES)
        deployments = "all" if len(kinds) == len(KINDS) else ", ".join(f"`{OPTIONS[kind]}`" for kind in kinds)
        today, merge = INCUMBENTS.get(variation.name, ("", ""))
        yield (variation.name, deployments, *cells, today, merge) if n == 0 else ("", deployments, *cells, "", "")


def _worst(variation: Variation, column: str, kinds: list[Kind], outcomes: _Found) -> str:
    found = [outcomes.get((variation.name, column, kind)) for kind in kinds]
    ratios = [outcome for outcome in found if isinstance(outcome, float)]
    return _cell(variation, column, max(ratios) if ratios else found[0])


def _cell(variation: Variation, column: str, outcome: Outcome) -> str:
    if variation.lacking(names_of(BASES[column])):
        return "-"
    match outcome:
        case None:
            return "not run"
        case str(code):
            return f"[{code}]"
        case number:
            return f"{number:.0e}" if number > 0 else "0"


def _reasons(variations: tuple[Variation, ...]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for variation in variations:
        for column, base in BASES.items():
            reason = variation.lacking(names_of(base))
            if reason:
                reasons.setdefault(reason, []).append(column)
    for reason, columns in reasons.items():
        yield f"{', '.join(dict.fromkeys(columns))}: {reason}.\n"
