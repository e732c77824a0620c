"""The curve as PNG and as text: what is drawn, where, and for which rows."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.image import imread

from converter.training.loss_curve import ASCII, BRAILLE, Glyphs, glyphs_for, loss_curve_text, write_loss_curve

Rows = list[dict[str, float]]
TRAIN, EVAL = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def falling(n: int, top: float = 2.0, low: float = 1.0) -> Rows:
    """Training losses from top to low by as much each step."""
    return [{"step": step, "loss": top + (low - top) * (step - 1) / max(n - 1, 1)} for step in range(1, n + 1)]


def evaluated(losses: Sequence[float], every: int) -> Rows:
    return [{"step": every * index, "eval_loss": loss} for index, loss in enumerate(losses)]


def noisy(n: int) -> Rows:
    noise = np.random.default_rng(0).normal(0, 0.3, n).tolist()
    return [{**row, "loss": row["loss"] + here} for row, here in zip(falling(n), noise, strict=True)]


def drawn(rows: Rows, directory: Path, title: str = "run") -> npt.NDArray[np.uint8]:
    """The picture: lines of RGB pixels."""
    path = directory / "loss.png"
    write_loss_curve(rows, title, path)
    pixels: npt.NDArray[np.uint8] = (imread(path)[..., :3] * 255).round().astype(np.uint8)
    return pixels


def where(pixels: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """Line and column of the pixels of this colour within the plot, left of the labels."""
    return np.argwhere((pixels[:, :1360] == colour).all(axis=-1))


@pytest.mark.parametrize(
    ("rows", "has_train", "has_eval"),
    [
        ([], False, False),
        (falling(1), True, False),
        (falling(5), True, False),
        (falling(50) + evaluated([2.0, 1.5, 1.2], 25), True, True),
        (evaluated([2.0], 1), False, True),
        (noisy(10_000) + evaluated([2.0 - step / 500 for step in range(500)], 20), True, True),
        (falling(40, 5.0, 0.01) + evaluated([4.0, 0.3, 0.02], 20), True, True),
        ([{"step": 1, "loss": math.nan}, {"step": 2, "loss": 1.0}, {"step": 2, "train_loss": 1.0}], True, False),
        ([{"step": 1, "loss": 0.0}, {"step": 2, "loss": 0.0}], True, False),
        ([{"step": 1, "loss": -3.0}, {"step": 2, "loss": 50.0}], True, False),
    ],
)
def test_the_picture_shows_the_losses_there_are(rows: Rows, has_train: bool, has_eval: bool, tmp_path: Path) -> None:
    pixels = drawn(rows, tmp_path)
    assert pixels.shape == (900, 1600, 3)
    assert (len(where(pixels, TRAIN)) > 0, len(where(pixels, EVAL)) > 0) == (has_train, has_eval)


def test_a_falling_loss_falls_in_the_picture(tmp_path: Path) -> None:
    """By as much all along: the smoothed line neither lags nor bends."""
    line = where(drawn(falling(200), tmp_path), TRAIN)
    heights = [line[line[:, 1] == column][:, 0].mean() for column in range(200, 1300, 100)]
    falls = [after - before for before, after in itertools.pairwise(heights)]
    assert min(falls) > 0
    assert max(falls) - min(falls) < 3


def test_one_spike_does_not_flatten_the_rest(tmp_path: Path) -> None:
    rows = noisy(400)
    rows[200]["loss"] = 90.0
    line = where(drawn(rows, tmp_path), TRAIN)
    assert np.ptp(line[:, 0]) > 200


def test_a_line_goes_on_to_the_end_of_the_steps(tmp_path: Path) -> None:
    columns = where(drawn(falling(50), tmp_path), TRAIN)[:, 1]
    assert columns.min() < 150
    assert columns.max() > 1330


def test_labels_stay_in_the_picture_and_apart(tmp_path: Path) -> None:
    """The longest values, at the same height."""
    pixels = drawn([*falling(50, 0.07, 0.05432), {"step": 50, "eval_loss": 0.05431}], tmp_path)
    labels = pixels[:, 1370:].astype(int)
    assert (pixels[:, -8:] == 255).all()
    for colour, other in ((TRAIN, EVAL), (EVAL, TRAIN)):
        lines = np.flatnonzero((labels == colour).all(axis=-1).any(axis=1))
        assert len(lines) > 5
        assert not (labels[lines.min() : lines.max() + 1] == other).all(axis=-1).any()


@pytest.mark.parametrize(("losses", "is_labelled"), [((2.0, 1.0, 2.0), True), ((3.0, 2.0, 1.0), False)])
def test_the_lowest_loss_is_named_unless_it_is_the_last(
    losses: tuple[float, ...], is_labelled: bool, tmp_path: Path
) -> None:
    """Above its point: in the middle of the steps, at whose column there is nothing but the point."""
    points = where(drawn(evaluated(losses, 1), tmp_path), EVAL)
    middle = points[(points[:, 1] > 730) & (points[:, 1] < 750)][:, 0]
    assert (int(np.ptp(middle)) > 40) is is_labelled


def test_a_title_is_no_formula_and_may_be_in_any_script(tmp_path: Path) -> None:
    drawn(falling(3), tmp_path, r"$\frac$ 学習")


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_loss_curve(noisy(50), "run", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_text_of_a_run() -> None:
    rows = [*falling(9, 3.0, 1.0), *evaluated([2.5, 2.0, 1.5], 4)]
    assert loss_curve_text(rows, 38, 6, ASCII).splitlines() == [
        "  3 +    '...",
        "    |o       '''..",
        "    |             'o'..",
        "1.8 +                  '''..",
        "    |                       '''..o",
        "  1 +                             ''..",
        "    +---------------------------------",
        "     0                               9",
        "     -- train 1   o eval 1.5   by step",
    ]


@pytest.mark.parametrize("glyphs", [BRAILLE, ASCII])
@pytest.mark.parametrize(
    "rows", [falling(1), falling(3), noisy(10_000), evaluated([2.0, 1.0], 7), falling(40, 5, 0.01)]
)
def test_the_text_has_its_size(rows: Rows, glyphs: Glyphs) -> None:
    lines = loss_curve_text(rows, 70, 12, glyphs).splitlines()
    assert len(lines) == 12 + 3
    assert max(map(len, lines)) <= 70


def test_a_steep_line_has_no_gaps() -> None:
    rows = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": 1.0}, {"step": 99, "loss": 1.0}]
    lines = loss_curve_text(rows, 40, 8).splitlines()[:8]
    assert all(line.partition("┤")[2].strip() or line.partition("│")[2].strip() for line in lines)


def test_many_evaluations_leave_the_line_to_be_seen() -> None:
    lines = loss_curve_text(falling(500) + evaluated([2 - step / 500 for step in range(501)], 1), 60)
    curve = "".join(lines.splitlines()[:10])
    assert 10 <= curve.count("●") <= 60 // 4
    assert sum(mark > BRAILLE.cells[1] for mark in curve) > 30


def test_a_log_scale_says_so() -> None:
    assert "log scale" in loss_curve_text(falling(40, 5, 0.01), 60)
    assert "log scale" not in loss_curve_text(falling(40, 5, 1), 60)


def test_without_losses_there_is_no_text() -> None:
    assert not loss_curve_text([{"step": 1, "loss": math.inf}], 60)


@pytest.mark.parametrize(
    ("encoding", "glyphs"), [("utf-8", BRAILLE), ("cp1252", ASCII), ("ascii", ASCII), (None, ASCII), ("no such", ASCII)]
)
def test_the_glyphs_suit_the_stream(encoding: str | None, glyphs: Glyphs) -> None:
    assert glyphs_for(encoding) is glyphs
    loss_curve_text(falling(9), 40, 5, glyphs).encode(encoding if encoding in {"utf-8", "cp1252"} else "ascii")
