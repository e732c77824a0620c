"""A verification as text for people and as data for machines. The first line of the text is the verdict."""

from collections.abc import Iterator
from dataclasses import asdict
from math import isfinite
from typing import Any, Final

from converter.errors import FINE, JUDGED_BAD
from converter.read.files import real
from converter.report.envelope import envelope
from converter.report.printable import printable
from converter.verification.comparison import LogitsComparison, QuantizedBase, ratio_of
from converter.verification.sums import KEPT_AT_LEAST, KEPT_AT_MOST
from converter.verification.tensor_proof import TensorProof
from converter.verification.thresholds import Threshold
from converter.verification.verification import Verification

_MAX_FAILURES: Final = 10

# Figure, value, wanted, meaning.
Row = tuple[str, str, str, str]


def verdict_text(verification: Verification) -> str:
    """The verdict, its reasons, and a table of every figure with what was wanted of it."""
    lines = [_first_line(verification), *_reasons(list(verification.failures)), ""]
    return "\n".join(map(printable, [*lines, *_aligned(list(_rows(verification)))]))


def verdict_data(verification: Verification) -> dict[str, object]:
    """The same for ``--format json``; numbers that are not finite are null."""
    logits, tensors = verification.comparison, verification.tensors
    data: dict[str, Any] = {
        "passed": verification.passed,
        "failures": list(verification.failures),
        "adapter": str(verification.adapter),
        "file": str(verification.deployed.file),
        "threshold": asdict(verification.threshold),
        "logits": logits and _logits_data(logits),
        "tensors": [asdict(check) for check in tensors.checks],
    }
    status = FINE if verification.passed else JUDGED_BAD
    return envelope("adapter-verify", status, **{key: _finite(value) for key, value in data.items()})


def _first_line(verification: Verification) -> str:
    file, adapter = verification.deployed.file, real(verification.adapter).name
    if verification.comparison is None:
        return f"FAIL  llama.cpp can't run {file} with {adapter}"
    threshold = verification.threshold
    wanted = f"at most {threshold.ratio:g} for {threshold.reason}"
    ratio = f"effect ratio {_number(verification.comparison.effect_ratio)} ({wanted})"
    if not verification.passed:
        return f"FAIL  {_why(verification, ratio)}: {file} is not proven to serve {adapter}"
    return f"PASS  {ratio}: {file} serves {adapter} as PEFT does"


def _why(verification: Verification, ratio: str) -> str:
    """What kept it from passing; a ratio that is fine is not named as the reason."""
    logits, threshold, n_faults = verification.comparison, verification.threshold, len(verification.tensors.faults)
    if logits and not threshold.has_effect(logits):
        return "the adapter has too little effect on these texts"
    if logits and not threshold.allows(logits):
        return ratio
    return f"{n_faults} tensor{'s' if n_faults > 1 else ''} at fault"


def _reasons(failures: list[str]) -> Iterator[str]:
    yield from (f"  - {failure}" for failure in failures[:_MAX_FAILURES])
    if len(failures) > _MAX_FAILURES:
        yield f"  - and {len(failures) - _MAX_FAILURES} more (--format json lists all)"


def _rows(verification: Verification) -> Iterator[Row]:
    yield "figure", "value", "wanted", "meaning"
    if verification.comparison:
        yield from _logits_rows(verification.comparison, verification.threshold)
    yield from _tensor_rows(verification.tensors)


def _logits_rows(logits: LogitsComparison, threshold: Threshold) -> Iterator[Row]:
    # Named only where the floor is what passes it.
    floored = logits.effect_ratio > threshold.ratio and threshold.is_at_floor(logits)
    wanted_effect = threshold.effect_per_floor * (logits.floor or 0)
    yield (
        "effect ratio",
        _number(logits.effect_ratio),
        "<= noise floor" if floored else f"<= {threshold.ratio:g}",
        "KL(PEFT || llama.cpp) / KL(PEFT || base): 0 is exact, 1 is no adapter",
    )
    yield (
        "effect",
        _number(logits.effect),
        f">= {_number(wanted_effect)}" if logits.floor else "> 0",
        f"KL(PEFT || base), mean nats of {logits.n_tokens} tokens; {threshold.effect_per_floor:g} noise floors",
    )
    yield "mean KL", _number(logits.kl), "", "KL(PEFT || llama.cpp)"
    yield "max KL", _number(logits.kl_max), "", "at the worst token"
    floor = "unknown" if logits.floor is None else _number(logits.floor)
    yield "noise floor", floor, "", "KL(PEFT's base || llama.cpp's base): two programs, one model"
    yield "top-1 agreement", f"{logits.top1:.4f}", "", "not judged: often 1 on wrong conversions"
    yield "max |d logit|", _number(logits.max_abs_diff), "", "largest difference of any logit"
    yield "perplexity ratio", f"{logits.perplexity_ratio:.6f}", "", "llama.cpp / PEFT on these texts"
    ratio = _number(logits.effect_ratio_by_default)
    yield "ratio by default", ratio, "", "the effect ratio with llama.cpp's own settings: F16 cache, flash attention"
    if logits.quantized_base:
        yield from _quantized_base_rows(logits.quantized_base, logits.effect)


def _quantized_base_rows(base: QuantizedBase, effect: float) -> Iterator[Row]:
    """Rows that are shown, not judged: the file has to be far from what its base does without the adapter."""
    yield "quantised base:", "", "", "a file without the adapter, on the same texts; not judged"
    yield "  noise", _number(ratio_of(base.noise, effect)), "", "KL(PEFT's base || quantised base) / effect"
    yield "  effect ratio", _number(ratio_of(base.kl, effect)), "", "KL(PEFT || quantised base) / effect"
    yield "  top-1 agreement", f"{base.top1:.4f}", "", "with PEFT"
    yield "  perplexity ratio", f"{base.perplexity_ratio:.6f}", "", "quantised base / PEFT"
    moved = _number(ratio_of(base.kl_of_deployed, effect))
    yield (
        "  effect of the file",
        moved,
        "",
        "KL(llama.cpp || quantised base) / effect: about 1 where the adapter is whole",
    )
    yield "  top-1 of the file", f"{base.top1_of_deployed:.4f}", "", "agreement of the file and the quantised base"
    yield "  perplexity", f"{base.perplexity_ratio_of_deployed:.6f}", "", "llama.cpp / quantised base"


def _tensor_rows(proof: TensorProof) -> Iterator[Row]:
    n_touched = sum(check.touched for check in proof.checks)
    how = f"{n_touched} touched, {proof.n_by('bytes')} the base's bytes, {proof.n_by('nothing')} not compared"
    yield "tensors at fault", str(len(proof.faults)), "0", f"of {len(proof.checks)}: {how}"
    yield "rounding", _number(proof.error), "<= 1", "largest error of a weight over the one its type allows"
    if proof.kept:
        kept = "{:.3f} to {:.3f}".format(*proof.kept)
        yield "delta kept", kept, f"{KEPT_AT_LEAST} to {KEPT_AT_MOST}", "share of each tensor's delta that is there"


def _aligned(rows: list[Row]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[3]])


def _logits_data(logits: LogitsComparison) -> dict[str, Any]:
    base = logits.quantized_base
    ratios = {
        "effect_ratio": logits.effect_ratio,
        "effect_ratio_by_default": logits.effect_ratio_by_default,
    }
    return {**ratios, **asdict(logits), "quantized_base": base and _quantized_base_data(base, logits.effect)}


def _quantized_base_data(base: QuantizedBase, effect: float) -> dict[str, Any]:
    ratios = {
        "effect_ratio": ratio_of(base.kl, effect),
        "effect_of_deployed": ratio_of(base.kl_of_deployed, effect),
    }
    return {**ratios, **asdict(base)}


def _number(value: float) -> str:
    return f"{value:.3g}"


def _finite(data: Any) -> Any:
    match data:
        case dict():
            return {key: _finite(value) for key, value in data.items()}
        case list():
            return [_finite(value) for value in data]
        case float() if not isfinite(data):
            return None
        case _:
            return data
