"""One worker of a sweep as a process of its own, which a test may kill: its arguments are FILE DIRECTORY SECONDS."""

import sys
from pathlib import Path

from converter.training.sweep import run
from converter.training.watch import Unwatched
from tests.unit.training.sweep.fake_training import FakeTraining, settings


def main(path: str, directory: Path, seconds: float) -> None:
    vars(run)["html_report"] = lambda _results, advice: str(advice)  # plots take time, and are looked at elsewhere
    run.sweep(path, settings(directory.parent), directory, FakeTraining(seconds), Unwatched(), base_has_biases=False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
