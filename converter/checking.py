"""Judge one adapter: run the rules, stamp what they find, say which were skipped and why."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.model_names import family, without_cache
from converter.derive.module_paths import tower_of
from converter.derive.replication import as_trained
from converter.diagnostics import (
    AdapterCheck,
    BaseCheck,
    BaseValuesCheck,
    CannotLookError,
    Check,
    Deployment,
    DirectoryCheck,
    EitherCheck,
    Finding,
    Limits,
    NoBaseCheck,
    PolicyCheck,
    Problem,
    Report,
    Rule,
    Serving,
    Severity,
    Skipped,
    TargetCheck,
    ValuesCheck,
    WhileWriting,
)
from converter.errors import ConverterError
from converter.fingerprint import RECORD_NAME, recorded_base
from converter.rules import RULES

if TYPE_CHECKING:
    from converter.targets.judged import Judged
    from converter.targets.tables import Wanted

_NO_BASE: Final = "no base given (--base)"
_NO_VALUES: Final = "reads the numbers (--headers-only)"
_ON_HUB: Final = "reads the base's weights, which were not fetched"
_LEFT_OUT: Final = "left out by --select or --ignore"  # or by the same of a policy


def check_adapter(  # noqa: PLR0913  one judgement, all that it may take into account
    adapter: Adapter,
    base: BaseModel | None,
    deployment: Deployment,
    *,
    values: bool = False,
    limits: Limits | None = None,
    targets: "Iterable[Wanted]" = (),
    deployment_asked: bool = True,
) -> Report:
    """Judge an adapter, beside its base where there is one, for a deployment. ``values`` reads the numbers too.

    ``limits`` are those of the user's policy. ``targets`` are servers that the adapter goes to; where only those were
    asked for, the deployment was not. Of an adapter on a hub there are no numbers to read.

    Raises ConverterError where a file can't be read any more.
    """
    values = values and adapter.on_hub is None
    base = as_trained(_matched(adapter, base, deployment, values=values), adapter) if base else None
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    with _remembering(values=values):
        adapter = compared(adapter, base) if base and values and not base.on_hub else adapter
        answers = _answers(adapter, base, tuple(targets), trust_named_base=limits is None or limits.trust_named_base)
        at = _Looked(adapter, base, limits, answers, _said_before(adapter))
        for rule in RULES:
            try:
                problems = tuple(_problems(rule.check, at, values=values))
            except CannotLookError as reason:
                skipped.append(Skipped(rule.code, rule.name, str(reason), gguf=rule.gguf))
            else:
                findings.extend(_stamped(rule, problem) for problem in problems)
    skipped += _left_out(adapter)
    path, checked_by = (
        (str(base.shown_path), tuple(_base_checked_by(adapter, base, values=values))) if base else (None, ())
    )
    return Report(
        adapter.shown_path,
        path,
        deployment,
        tuple(findings),
        tuple(skipped),
        base_checked_by=checked_by,
        base_named_by_adapter=bool(base and base.named_by_adapter),
        targets=tuple(Serving(str(it.wanted), it.form, it.evidence, it.needs, it.note) for it in answers),
        deployment_asked=deployment_asked or not answers,
        read_with=adapter.read_with,
    )


def _matched(adapter: Adapter, base: BaseModel, deployment: Deployment, *, values: bool) -> BaseModel:
    """The base with the places of what the adapter touches, where it has a checkpoint in place of a table."""
    if base.checkpoint is None or not values or deployment.to == "lora":
        return base
    from converter.matching.matched import matched

    return matched(adapter, base)


def _left_out(adapter: Adapter) -> Iterator[Skipped]:
    """What the rule on a model's other parts is not asked, on the user's word."""
    if adapter.left_out:
        from converter.rules.lora.vision_tower_changed import RULE

        towers = Counter(tower_of(tensor.module) for tensor in adapter.left_out)
        parts = ", ".join(f"{count} tensors of {tower}" for tower, count in towers.items())
        yield Skipped(RULE.code, RULE.name, f"--text-only leaves out {parts}", by_choice=True)


def _answers(
    adapter: Adapter, base: BaseModel | None, targets: "tuple[Wanted, ...]", *, trust_named_base: bool
) -> "tuple[Judged, ...]":
    if not targets:
        return ()
    from converter.targets.judged import judged

    return judged(adapter, base, targets, trust_named_base=trust_named_base)


def _remembering(*, values: bool) -> AbstractContextManager[None]:
    if not values:
        return nullcontext()
    try:
        from converter.values.memory import remembering
    except ImportError as error:
        raise ConverterError("numpy, by which the numbers are read, isn't installed: say --headers-only") from error
    return remembering()


def compared(adapter: Adapter, base: BaseModel) -> Adapter:
    """The adapter, which knows what of it holds the base's own numbers. Raises ConverterError as reading does."""
    if not adapter.saved_modules:
        return adapter
    from converter.values.unchanged import with_unchanged

    return with_unchanged(adapter, base)


def _base_checked_by(adapter: Adapter, base: BaseModel, *, values: bool) -> Iterator[str]:
    """What the adapter brings to tell its base from others of the same shapes; where it doesn't agree, rules say so."""
    if base.tensors and not base.quantization and recorded_base(adapter.path):
        yield RECORD_NAME
    values = values and base.has_numbers
    if values and adapter.base_layers:
        yield "the base layer saved beside the LoRA"
    if values and not base.quantization and any(pair.magnitude and not pair.is_embedding for pair in adapter.pairs):
        yield "DoRA's magnitudes"
    named = without_cache(adapter.config.base_model_name_or_path or "") if adapter.config else None
    if named and base.name and family(named) and family(base.name):
        yield "its name"


class _Looked(NamedTuple):
    """What checks look at: an adapter, its base, and what was asked beside a deployment."""

    adapter: Adapter
    base: BaseModel | None
    limits: Limits | None
    answers: "tuple[Judged, ...]"
    said: "dict[Check, tuple[Problem, ...]]"


# The adapter that was judged last, and what was said of its config and headers alone. Those of a run mostly say the
# same there, and half of the time of judging one went into saying so again.
_last: tuple[Adapter, dict[Check, tuple[Problem, ...]]] | None = None


def _said_before(adapter: Adapter) -> dict[Check, tuple[Problem, ...]]:
    global _last  # noqa: PLW0603  a memory of one
    if _last is None or not adapter.says_the_same(_last[0]):
        # Of one on a hub not what was fetched, which goes with the adapter.
        _last = (replace(adapter, on_hub=None) if adapter.on_hub else adapter), {}
    return _last[1]


def _of_what_is_said(check: AdapterCheck | NoBaseCheck, at: _Looked) -> tuple[Problem, ...]:
    known = at.said.get(check)
    if known is None:
        known = at.said[check] = tuple(check.run(at.adapter))
    return known


def _problems(check: Check, at: _Looked, *, values: bool) -> Iterable[Problem]:
    if isinstance(check, ValuesCheck | BaseValuesCheck) and not values:
        raise CannotLookError(_NO_VALUES)
    if isinstance(check, BaseValuesCheck) and at.base and at.base.on_hub:
        raise CannotLookError(_ON_HUB)
    match check:
        case AdapterCheck():
            return _of_what_is_said(check, at)
        case DirectoryCheck(run) | ValuesCheck(run):
            return run(at.adapter)
        case BaseCheck(run) | BaseValuesCheck(run):
            return run(at.adapter, _given(at.base))
        case EitherCheck(run):
            return run(at.adapter, at.base)
        case NoBaseCheck():
            return () if at.base else _of_what_is_said(check, at)
        case asked:
            return _of_what_was_asked(asked, at)


def _of_what_was_asked(check: PolicyCheck | TargetCheck | WhileWriting, at: _Looked) -> Iterable[Problem]:
    match check:
        case PolicyCheck(run):
            return run(at.adapter, at.base, at.limits) if at.limits else ()
        case TargetCheck(run):
            return run(at.answers)
        case WhileWriting():
            return ()


def _given(base: BaseModel | None) -> BaseModel:
    if base is None:
        raise CannotLookError(_NO_BASE)
    return base


def _stamped(rule: Rule, problem: Problem) -> Finding:
    forbids = rule.severity is Severity.ERROR and not isinstance(rule.check, PolicyCheck)
    return Finding(
        rule.code, rule.name, rule.severity, problem.where, problem.message, problem.blocks, forbids,
        target=problem.target, gguf=rule.gguf,
    )  # fmt: skip


def codes_left_out(select: tuple[str, ...], ignore: tuple[str, ...]) -> frozenset[str]:
    """The codes of the rules that don't count, by prefixes of those that do (all, where none is given) and don't."""
    codes = (rule.code for rule in RULES)
    return frozenset(
        code for code in codes if not code.startswith(select or "") or (ignore and code.startswith(ignore))
    )


def without(report: Report, codes: frozenset[str]) -> Report:
    """The report with the rules of ``codes`` left out of the verdict: shown as skipped, what they found as hidden."""
    applied = (rule for rule in RULES if rule.code in codes and not isinstance(rule.check, WhileWriting))
    left_out = tuple(Skipped(rule.code, rule.name, _LEFT_OUT, by_choice=True, gguf=rule.gguf) for rule in applied)
    return replace(
        report,
        findings=tuple(finding for finding in report.findings if finding.code not in codes),
        skipped=(*(skip for skip in report.skipped if skip.code not in codes), *left_out),
        hidden=tuple(finding._replace(note=_LEFT_OUT) for finding in report.findings if finding.code in codes),
    )
