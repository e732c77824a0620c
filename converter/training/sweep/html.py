"""report.html: everything about a sweep in one file that needs no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from converter.training.sweep.plots import COLOURS, learning_curves, loss_against_forgetting, loss_against_rank
from converter.training.sweep.recommendation import NoRecommendation, Recommendation
from converter.training.sweep.results import TrialResult, read_report
from converter.training.sweep.summaries import Summary, best_by_head, noise_of, side_by_side, summaries
from converter.training.sweep.words import deployed_words, loss_words, nbytes_words, other_words, share_words


@dataclass(frozen=True, slots=True)
class _Plot:
    title: str
    svg: str
    caption: str


def html_report(results: Sequence[TrialResult], advice: Recommendation | NoRecommendation) -> str:
    """The page as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        loss=loss_words,
        share=share_words,
        nbytes=nbytes_words,
        setting=other_words,
        deployed=deployed_words,
        summary=_summary,
    )
    source = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    found = summaries(results)
    recommended = advice.trial if isinstance(advice, Recommendation) else None
    return environment.from_string(source).render(
        advice=advice if isinstance(advice, Recommendation) else None,
        why_nothing=advice.reason if isinstance(advice, NoRecommendation) else "",
        heads=best_by_head(found),
        direct=side_by_side(found),
        noise=noise_of(found),
        plots=_plots(results, recommended),
        results=results,
        recommended=recommended,
        facts=_facts(results),
        colours=COLOURS,
    )


def _plots(results: Sequence[TrialResult], recommended: TrialResult | None) -> list[_Plot]:
    every = [
        _Plot(
            "Eval loss against rank",
            loss_against_rank(results, recommended),
            "Large: the best setting of each rank, a bar for the spread of its seeds. Faint: all other trials. "
            "Hollow: pruned, at its last loss. What lies above the plot is drawn at its upper edge.",
        ),
        _Plot(
            "Learning curves",
            learning_curves(results, recommended),
            "Eval loss at each evaluation. A hollow end is where a trial was pruned.",
        ),
        _Plot(
            "Forgetting",
            loss_against_forgetting(results, recommended),
            "To the left: better at the task. Down: less of what the base knew was lost.",
        ),
    ]
    return [plot for plot in every if plot.svg]


def _facts(results: Sequence[TrialResult]) -> Mapping[str, Any]:
    """What all trials share, from the report of the first that has one."""
    whole = next((result for result in results if result.outcome), None)
    return read_report(whole.directory) if whole else {}


def _summary(result: TrialResult) -> Summary:
    return Summary((result,))
