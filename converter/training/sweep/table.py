"""The trials as an aligned table of plain text, for a terminal or a pipe, and the recommendation above it."""

import textwrap
from collections.abc import Sequence

from converter.training.sweep.recommendation import NoRecommendation, Recommendation
from converter.training.sweep.results import TrialResult
from converter.training.sweep.words import loss_words, share_words

_HEADINGS = ("trial", "head", "r", "alpha", "dropout", "biases", "rate", "seed", "eval loss", "forgot", "")
_LEFT = ("head", "biases", "")


def text_table(results: Sequence[TrialResult], recommended: TrialResult | None) -> str:
    """One line a trial, the lowest eval loss first; the recommended one is starred."""
    rows = [_HEADINGS, *(_row(result, recommended) for result in sorted(results, key=_order))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ("  ".join(_aligned(*cell) for cell in zip(row, _HEADINGS, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def recommendation_text(advice: Recommendation | NoRecommendation, width: int = 100) -> str:
    """The recommendation with its reason, its doubts and its command."""
    if isinstance(advice, NoRecommendation):
        return f"{advice.reason}\n"
    sentences = [f"Recommended: trial {advice.trial.number:04}. {advice.reason[0]}", *advice.reason[1:]]
    lines = (textwrap.fill(line, width, subsequent_indent="  ") for line in (*sentences, *advice.caveats))
    return "".join(f"{line}\n" for line in lines) + f"\n  {advice.command}\n"


def _order(result: TrialResult) -> tuple[bool, float]:
    ended = result.state == "completed" and result.eval_loss is not None
    return not ended, result.eval_loss if ended and result.eval_loss is not None else result.number


def _row(result: TrialResult, recommended: TrialResult | None) -> tuple[str, ...]:
    values = result.values
    remarks = "*" if result is recommended else "" if result.state == "completed" else result.state
    return (
        f"{result.number:04}",
        values.head,
        str(values.r),
        f"{values.alpha_over_r * values.r:g}" + (" rs" if values.use_rslora else ""),
        f"{values.lora_dropout:g}",
        "lora_bias" if values.lora_bias else values.bias,
        f"{values.learning_rate:g}",
        str(values.seed),
        loss_words(result.eval_loss),
        share_words(result.outcome.forgetting if result.outcome else None),
        f"{remarks}: {result.reason}" if result.reason else remarks,
    )


def _aligned(cell: str, heading: str, width: int) -> str:
    return cell.ljust(width) if heading in _LEFT else cell.rjust(width)
