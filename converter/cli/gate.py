"""By what a run of adapter-check settles its reports: the options alone, or a policy and its waivers too."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from converter.checking import codes_left_out, without
from converter.derive.adapter import Adapter
from converter.diagnostics import Deployment, Limits, Report
from converter.read.files import exists

if TYPE_CHECKING:
    from converter.policy import Policy, WaiverUse
    from converter.read.hub_address import Address
    from converter.targets.tables import Wanted


class Asked(NamedTuple):
    """What is asked of adapters: a deployment, servers, or both. ``named``: the options name the deployment."""

    deployment: Deployment
    named: bool
    targets: "tuple[Wanted, ...]" = ()

    @property
    def deployment_counts(self) -> bool:
        """Whether the deployment was asked for: where nothing else is, it is."""
        return self.named or not self.targets


class Gate(Protocol):
    """What settles the reports of a run."""

    def limits(self, adapter: "Path | Address") -> Limits:
        """What no adapter at this path may exceed."""

    def targets(self, adapter: "Path | Address") -> "tuple[Wanted, ...]":
        """What serves an adapter at this path, beside what the options name."""

    def settled(self, report: Report, adapter: Callable[[], Adapter]) -> Report:
        """The report as it counts; ``adapter`` is asked for where its bytes matter."""

    def uses(self) -> "Iterator[WaiverUse]":
        """What each waiver did."""


class OptionsGate:
    """Rules are left out by --select and --ignore, and nothing else."""

    def __init__(self, select: tuple[str, ...], ignore: tuple[str, ...]) -> None:
        """By these prefixes of codes."""
        self._left_out = codes_left_out(select, ignore)

    def limits(self, _adapter: "Path | Address") -> Limits:
        """Those of a policy that says nothing."""
        return Limits()

    def targets(self, _adapter: "Path | Address") -> "tuple[Wanted, ...]":
        """None."""
        return ()

    def settled(self, report: Report, _adapter: Callable[[], Adapter]) -> Report:
        """The report without what is left out."""
        return without(report, self._left_out)

    def uses(self) -> "Iterator[WaiverUse]":
        """None."""
        return iter(())


class PolicyGate:
    """The options come on top of a policy: --select instead of its own, --ignore beside it."""

    def __init__(self, policy: "Policy", select: tuple[str, ...], ignore: tuple[str, ...]) -> None:
        """On the day it is."""
        from datetime import date

        from converter.judgement import Waivers

        self._policy, self._select, self._ignore = policy, select, ignore
        self._waivers = Waivers(policy, date.today())  # noqa: DTZ011  the day of who runs it

    def limits(self, adapter: "Path | Address") -> Limits:
        """The policy's for this path."""
        return self._policy.settings_for(adapter).limits

    def targets(self, adapter: "Path | Address") -> "tuple[Wanted, ...]":
        """The policy's for this path."""
        return self._policy.settings_for(adapter).targets

    def settled(self, report: Report, adapter: Callable[[], Adapter]) -> Report:
        """The report with the policy's severities, without what is left out, and with what is waived apart."""
        from converter.digests import adapter_digest
        from converter.judgement import settled

        own = self._policy.settings_for(report.path)
        settings = own._replace(select=self._select or own.select, ignore=(*own.ignore, *self._ignore))
        return self._waivers.applied(settled(report, settings), lambda: adapter_digest(adapter()))

    def uses(self) -> "Iterator[WaiverUse]":
        """What each of the policy's waivers did."""
        return self._waivers.uses()


def may_have_policy(directory: Path) -> bool:
    """Whether a policy may be found from ``directory`` upwards: what reads one takes its time to import."""
    places = (directory, *directory.parents)
    return any(exists(place / name) for place in places for name in ("adapter-check.toml", "pyproject.toml"))
