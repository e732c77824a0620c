"""A sweep whose trials are trainings: what the first one measured of the base holds for all."""

from converter.training.head import linear_modules_have_bias
from converter.training.report import REPORT_NAME, TrainingReport
from converter.training.run import measured_base, train
from converter.training.settings import TrainingSettings
from converter.training.sweep.run import SweepOutcome, sweep
from converter.training.watch import Watch


def sweep_trainings(path: str, settings: TrainingSettings, watch: Watch) -> SweepOutcome:
    """Run the sweep of a TOML file, or "default", in ``settings.output``; one that was begun there goes on.

    Raises ConverterError where the directory holds another sweep, where nothing could be compared, or where all of the
    first trials fail.
    """
    has_biases = linear_modules_have_bias(settings.base)
    return sweep(path, settings, settings.output, _trial, watch, base_has_biases=has_biases)


def _trial(settings: TrainingSettings, watch: Watch) -> TrainingReport:
    reports = sorted(settings.output.parent.glob(f"*/{REPORT_NAME}"))
    return train(settings, watch, measured_base(reports[0]) if reports else None)
