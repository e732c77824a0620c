"""``adapter-check``: judges adapters before they are deployed."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from converter.checking import check_adapter
from converter.cli import options
from converter.cli.command import Command, unforeseen
from converter.cli.gate import Asked, Gate, OptionsGate, PolicyGate, may_have_policy
from converter.cli.width import report_width
from converter.derive.adapter import Adapter, read_adapter, text_part, with_renamed_keys
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.locate import find_base, read_initial_adapter
from converter.diagnostics import Deployment, Report, Severity
from converter.errors import COULD_NOT, FINE, JUDGED_BAD, NOTHING_LOOKED_AT, ConverterError, Status, worst
from converter.read.checkpoint import Found, find_adapters
from converter.read.files import exists, real
from converter.report.documentation import explanation, rule_named
from converter.report.formats import FORMATS, rendered
from converter.report.outcomes import Outcome, Run, Unread, status_of
from converter.report.printable import printable
from converter.report.text import text_report
from converter.rules import RULES
from converter.version import __version__

if TYPE_CHECKING:
    from datetime import datetime

    from converter.policy import Policy
    from converter.read.hub_address import Address
    from converter.report.several import Detail
    from converter.targets.tables import Wanted

COMMAND = "adapter-check"

_HELP = """Judge the PEFT adapters at each PATH: would adapter-to-gguf convert them, given the same options?

A PATH is an adapter's directory, or one with adapters below it, or an address on a hub (hf://ORG/NAME@REVISION) or
in a bucket (s3://BUCKET/PREFIX, gs://BUCKET/PREFIX). Of those the headers are fetched and not the numbers.

Exit status: 0 yes. 1 no, or doubtful with --strict. 2 something could not be read or done. 3 there is no adapter at a
PATH. Of several the worst counts: 2, then 3, then 1.
"""


class Request(NamedTuple):
    """What is asked of every adapter of a run."""

    base: BaseModel | None
    asked: Asked
    values: bool
    gate: Gate
    initial: Adapter | None
    rename_keys: bool
    text_only: bool


def _explain(context: click.Context, _parameter: click.Parameter, code: str | None) -> None:
    if code is None or context.resilient_parsing:
        return
    rule = rule_named(code)
    if rule is None:
        raise click.BadParameter(f"no rule {code!r}; docs/rules.md lists them all")
    click.echo(explanation(rule, report_width()))
    context.exit()


def _prefixes(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    prefixes = tuple(prefix.strip().upper() for prefix in value.split(",") if prefix.strip())
    for prefix in prefixes:
        if not any(rule.code.startswith(prefix) for rule in RULES):
            raise click.BadParameter(f"no rule's code begins with {prefix!r}")
    return prefixes


_FORMAT = (
    f"""How to print the report (text), or to write it to FILE. May be given several times: {", ".join(FORMATS)}."""
)


def _targets(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> "tuple[Wanted, ...]":
    if not values:
        return ()
    from converter.targets.tables import wanted

    try:
        return tuple(map(wanted, values))
    except ConverterError as error:
        raise click.BadParameter(str(error)) from error


def _formats(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> Mapping[str | None, str]:
    """The format of each file; that of what is printed under None."""
    formats: dict[str | None, str] = {}
    places: dict[Path | None, str] = {}
    for value in values:
        name, is_file, file = value.partition("=")
        if name not in FORMATS:
            raise click.BadParameter(f"no format {name!r}; there are {', '.join(FORMATS)}")
        if is_file and not file:
            raise click.BadParameter(f"{value} names no file")
        place = real(Path(file)) if file else None
        if place in places:
            where = file or "standard output"
            raise click.BadParameter(f"{places[place]} and {name} can't both go to {where}; give {name}=FILE")
        formats[file or None] = places[place] = name
    return {None: "text", **formats}


@click.command(COMMAND, cls=Command, help=_HELP)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=options.ADAPTER)
@click.option(
    "--base",
    type=options.BASE_BY_NAME,
    help="Base model: a Hugging Face directory (config.json is enough), ORG/NAME[@REVISION], or a GGUF file.",
)
@click.option("--download", is_flag=True, help=options.DOWNLOAD_BASE)
@click.option(
    "--to", type=click.Choice(["lora", "model"]), help="What the adapter is to become, as for adapter-to-gguf."
)
@click.option("--untie", is_flag=True, help="The head is to become a tensor of its own, as for adapter-to-gguf.")
@click.option("--target", "targets", multiple=True, callback=_targets, metavar="NAME[@VERSION]", help=options.TARGET)
@click.option("--initial-adapter", type=options.PATH, help=options.INITIAL_ADAPTER)
@click.option("--rename-keys", is_flag=True, help=options.RENAME_KEYS)
@click.option("--text-only", is_flag=True, help=options.TEXT_ONLY)
@click.option("--values/--headers-only", default=True, help=options.VALUES)
@click.option("--format", "formats", multiple=True, callback=_formats, metavar="FORMAT[=FILE]", help=_FORMAT)
@click.option(
    "--select", callback=_prefixes, default="", metavar="CODES", help="Apply only rules whose codes begin so: HD,ST001."
)
@click.option("--ignore", callback=_prefixes, default="", metavar="CODES", help="Leave out rules whose codes begin so.")
@click.option("--config", type=options.PATH, help="The policy, instead of the nearest adapter-check.toml.")
@click.option("--no-config", is_flag=True, help="Apply no policy.")
@click.option("--baseline-until", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY", help=options.BASELINE)
@click.option(
    "--reason",
    default="there when the gate was set up",
    show_default=True,
    help="The reason in the waivers of --baseline-until.",
)
@click.option("--attest", type=options.PATH, metavar="FILE", help="Write an in-toto statement for each adapter.")
@click.option("--verify-attestation", type=options.PATH, metavar="FILE", help=options.VERIFY_ATTESTATION)
@click.option("--exit-zero", is_flag=True, help="End with status 0 where adapters are refused; 2 and 3 stay.")
@click.option("--jobs", type=click.IntRange(1), default=1, metavar="N", help="Judge with N processes.")
@click.option("--strict", is_flag=True, help="Let warnings fail, and rules that could not be applied.")
@click.option("-q", "--quiet", "detail", flag_value="quiet", help="Print a line for each that fails.")
@click.option("-v", "--verbose", "detail", flag_value="verbose", help="Print all of each report.")
@click.option(
    "--explain",
    callback=_explain,
    is_eager=True,
    expose_value=False,
    metavar="CODE",
    help="Print a rule's documentation.",
)
@click.version_option(__version__)
def main(
    paths: "tuple[Path | Address, ...]",
    base: "Path | Address | None",
    download: bool,
    to: Literal["lora", "model"] | None,
    untie: bool,
    targets: "tuple[Wanted, ...]",
    initial_adapter: Path | None,
    rename_keys: bool,
    text_only: bool,
    values: bool,
    formats: Mapping[str | None, str],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    config: Path | None,
    no_config: bool,
    baseline_until: "datetime | None",
    reason: str,
    attest: Path | None,
    verify_attestation: Path | None,
    exit_zero: bool,
    jobs: int,
    strict: bool,
    detail: "Detail | None",
) -> None:
    asked = Asked(Deployment(to or ("model" if untie else "lora"), untie), to is not None, targets)
    policy = None if no_config else _policy(config)
    if attest or verify_attestation:
        from converter.report.attestation import with_bytes

        here = tuple(map(with_bytes, paths))
        if verify_attestation:
            from converter.cli.attest import verify_attestation as verified

            sys.exit(verified(verify_attestation, here, policy, asked, _base(base, download=download)))
    if attest and (select or ignore or not values):
        raise click.UsageError("--attest attests the policy whole: no --select, --ignore or --headers-only beside it")
    gate = PolicyGate(policy, select, ignore) if policy else OptionsGate(select, ignore)
    strict = strict or bool(policy and policy.fail_on is Severity.WARNING)
    try:
        model = _base(base, download=download)
        initial = read_initial_adapter(initial_adapter) if initial_adapter else None
    except ConverterError as error:
        outcomes: Iterable[Outcome] = [Unread(path, error.status, str(error)) for path in paths]
    else:
        outcomes = _outcomes(paths, Request(model, asked, values, gate, initial, rename_keys, text_only), jobs)
    told = _told(outcomes, strict=strict, detail=detail) if formats[None] == "text" else outcomes
    keeps = formats != {None: "text"} or bool(attest or baseline_until)
    kept, statuses = _kept(told, strict=strict, keeps=keeps)
    run = Run(kept, strict, report_width(), policy.path if policy else None, tuple(gate.uses()))
    _write(run, {Path(file): name for file, name in formats.items() if file})
    if attest:
        from converter.cli.attest import write_attestation

        write_attestation(attest, run, policy, model)
    if baseline_until:
        from converter.cli.baseline import write_baseline

        click.echo(printable(write_baseline(run, policy, baseline_until.date(), reason)), err=True)
    _print_of_all(run, formats[None])
    status = worst(statuses)
    sys.exit(FINE if status == JUDGED_BAD and (exit_zero or baseline_until) else status)


def _policy(config: Path | None) -> "Policy | None":
    """The policy of the option, else the nearest one; its reader is imported where there may be one."""
    if config is None and not may_have_policy(Path.cwd()):
        return None
    from converter.policy import find_policy, read_policy

    return read_policy(config) if config else find_policy(Path.cwd())


def _base(given: "Path | Address | None", *, download: bool) -> BaseModel | None:
    if given is None or isinstance(given, Path):
        return read_base_model(given) if given else None
    from converter.cli.on_hub import base_named

    return base_named(given, download=download, weights=False)


def _outcomes(paths: "Sequence[Path | Address]", request: Request, n_jobs: int) -> Iterator[Outcome]:
    """The outcome of every adapter that a path stands for; that there is none is an outcome too."""
    things = (thing for path in paths for thing in (_found(path) if isinstance(path, Path) else _found_on_hub(path)))
    judge = partial(_judged, request=request)
    if n_jobs > 1 and all(isinstance(path, Path) for path in paths):
        from converter.cli.jobs import side_by_side

        judged = side_by_side(judge, things, n_jobs)
    else:
        judged = map(judge, things)
    for outcome, adapter in judged:
        yield _settled(outcome, adapter, request)
    if request.initial:
        yield _settled(*_judged(request.initial, request), request)


def _found(path: Path) -> Iterator[Path | Unread]:
    found = find_adapters(path)
    if found == Found():
        why = "holds no adapter (no adapter_config.json)" if exists(path) else "no such file or directory"
        yield Unread(path, NOTHING_LOOKED_AT, why)
    for closed, why in found.closed:
        yield Unread(closed, COULD_NOT, f"can't be read: {why}")
    yield from found.adapters


def _found_on_hub(address: "Address") -> Iterator[Adapter | Unread]:
    from converter.hub import read_adapters_on_hub

    try:
        yield from read_adapters_on_hub(address)
    except ConverterError as error:
        yield Unread(address, error.status, str(error).removeprefix(f"{address}: "))
    except Exception as error:  # noqa: BLE001  as below
        yield Unread(address, COULD_NOT, unforeseen(error))


def _judged(thing: Path | Adapter | Unread, request: Request) -> tuple[Outcome, Path | Adapter]:
    """What comes of one adapter, and the adapter. Whatever ends its judging, the others are still judged."""
    if isinstance(thing, Unread):
        return thing, Path()
    try:
        adapter = read_adapter(thing) if isinstance(thing, Path) else thing
        asked = adapter if adapter is request.initial else _asked(adapter, request)
        return _report(asked, request), thing
    except Exception as error:  # noqa: BLE001  as in command.py: what nobody foresaw ends here, for this adapter
        return _unread(thing, error), thing


def _settled(outcome: Outcome, adapter: Path | Adapter, request: Request) -> Outcome:
    """The outcome as it counts. A path is read again where the bytes matter: it may have been another process's."""
    if isinstance(outcome, Unread):
        return outcome
    try:
        return request.gate.settled(outcome, lambda: read_adapter(adapter) if isinstance(adapter, Path) else adapter)
    except Exception as error:  # noqa: BLE001  as above
        return _unread(adapter, error)


def _unread(thing: Path | Adapter, error: Exception) -> Unread:
    path = thing if isinstance(thing, Path) else thing.shown_path
    return (
        Unread(path, error.status, str(error))
        if isinstance(error, ConverterError)
        else Unread(path, COULD_NOT, unforeseen(error))
    )


def _asked(adapter: Adapter, request: Request) -> Adapter:
    named = with_renamed_keys(adapter) if request.rename_keys else adapter
    return replace(text_part(named) if request.text_only else named, initial=request.initial)


def _report(adapter: Adapter, request: Request) -> Report:
    base = request.base or find_base(None, adapter)
    limits, own = request.gate.limits(adapter.shown_path), request.gate.targets(adapter.shown_path)
    asked = request.asked._replace(targets=tuple(dict.fromkeys((*request.asked.targets, *own))))
    return check_adapter(
        adapter, base, asked.deployment, values=request.values, limits=limits,
        targets=asked.targets, deployment_asked=asked.deployment_counts,
    )  # fmt: skip


def _write(run: Run, formats: Mapping[Path, str]) -> None:
    if formats:
        from converter.cli.report_files import write_report

        for path, name in formats.items():
            write_report(path, name, run)


def _told(outcomes: Iterable[Outcome], *, strict: bool, detail: "Detail | None") -> Iterator[Outcome]:
    """The outcomes, each printed as it comes: one alone whole, of several what matters."""
    coming = iter(outcomes)
    first = list(islice(coming, 2))
    several = None
    if len(first) > 1 or detail:
        from converter.report.several import Several

        several = Several(report_width(), strict=strict, detail=detail or "usual")
    for outcome in chain(first, coming):
        text = several.text(outcome) if several else _alone(outcome, strict=strict)
        is_unread = isinstance(outcome, Unread)
        if text:
            click.echo(f"{COMMAND}: {text}" if is_unread else text, err=is_unread)
        yield outcome
    if several and len(first) > 1 and (end := several.end()):
        click.echo(end)


def _alone(outcome: Outcome, *, strict: bool) -> str:
    if isinstance(outcome, Unread):
        return printable(f"{outcome.path}: {outcome.message}")
    return text_report(outcome, report_width(), strict=strict) + "\n"


def _kept(outcomes: Iterable[Outcome], *, strict: bool, keeps: bool) -> tuple[list[Outcome], list[Status]]:
    """The outcomes, for what is made of all of them together (of 10,000 they take 60 MB), and the status of each."""
    kept: list[Outcome] = []
    statuses: list[Status] = []
    for outcome in outcomes:
        statuses.append(status_of(outcome, strict=strict))
        if keeps:
            kept.append(outcome)
    return kept, statuses


def _print_of_all(run: Run, style: str) -> None:
    if style != "text":
        click.echo(rendered(style, run), nl=False)
        return
    for use in run.idle_waivers:
        click.echo(printable(f"{COMMAND}: {use}"), err=True)


if __name__ == "__main__":
    main()
