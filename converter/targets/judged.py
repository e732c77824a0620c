"""What a target would do with an adapter, by its table."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.targets.features import FEATURES, Use, features
from converter.targets.tables import ANY, Fact, Form, Target, Wanted, target_named

# Beside what a fact says: that nobody knows, and of what.
Answer = Literal["refused", "silent", "unknown-feature", "unknown-architecture", "unknown-version"]


class Fault(NamedTuple):
    """Why a target doesn't serve an adapter exactly, or isn't known to, and where that lies in it."""

    answer: Answer
    where: str
    message: str


class Judged(NamedTuple):
    """One target's answer: in which form it takes the adapter, how that is known, what the server has to be given.

    ``faults`` are those of the adapter as a directory of PEFT's; what stops a GGUF the other rules say.
    """

    wanted: Wanted
    form: Form
    evidence: str
    needs: str
    note: str
    faults: tuple[Fault, ...]


class Pair(NamedTuple):
    """An adapter and its base. ``trusted``: the base is the user's own word, or the adapter's is good enough."""

    adapter: Adapter
    base: BaseModel | None
    uses: tuple[Use, ...]
    trusted: bool


def judged(
    adapter: Adapter, base: BaseModel | None, targets: Iterable[Wanted], *, trust_named_base: bool = False
) -> tuple[Judged, ...]:
    """The answer of each target, in order. A base that the adapter names clears nothing unless that is trusted."""
    trusted = trust_named_base or base is None or not base.named_by_adapter
    pair = Pair(adapter, base, features(adapter, base), trusted)
    return tuple(_judged(pair, target) for target in dict.fromkeys(targets))


def _judged(pair: Pair, wanted: Wanted) -> Judged:
    target = target_named(wanted.name)
    evidence = target.evidence(wanted.version)
    if evidence is None:
        fault = Fault("unknown-version", wanted.version, _unknown_version(target))
        return Judged(wanted, target.forms[-1].form, "unknown", "", "", (fault,))
    form = target.form(wanted.version)
    is_peft = form.form == "peft"
    faults = tuple(_faults(pair, wanted)) if is_peft else ()
    needs = _command(pair.adapter, target) if is_peft and not faults else ""
    return Judged(wanted, form.form, evidence, needs, form.does, faults)


def _unknown_version(target: Target) -> str:
    known = (f"{', '.join(of)} {how}" for how, of in (("measured", target.measured), ("read", target.documented)) if of)
    return f"of this version of {target.title} nothing is known; known are {'; '.join(known)}"


def _faults(pair: Pair, wanted: Wanted) -> Iterator[Fault]:
    target = target_named(wanted.name)
    architecture, why = _architecture(pair.base)
    if target.architectures != [ANY] and architecture not in target.architectures:
        found = why or f"{architecture} was not tried on {target.title}"
        known = ", ".join(target.architectures)
        yield Fault("unknown-architecture", _label(pair), f"{found}; known are {known}")
        return
    files, *others = pair.uses
    of_files = [*_of_use(files, target, wanted, architecture)]
    if of_files:  # it reads none of them: what they hold makes no difference
        yield from of_files
        return
    for use in others:
        yield from _of_use(use, target, wanted, architecture)
        yield from _of_trust(use, pair, target, wanted, architecture)
    yield from _of_sizes(pair, target, architecture)


def _label(pair: Pair) -> str:
    return pair.base.label if pair.base else "base"


def _of_trust(use: Use, pair: Pair, target: Target, wanted: Wanted, architecture: str) -> Iterator[Fault]:
    """Where the class decides, it isn't the adapter's to say: no adapter chooses its own judge."""
    fact = target.fact(use.feature, wanted.version, architecture)
    if fact and fact.on and fact.verdict == "exact" and not pair.trusted:
        found = f"that it is a {architecture} is known by the adapter's word alone; name it with --base"
        yield Fault("unknown-architecture", _label(pair), f"{FEATURES[use.feature]}: {found}")


def _architecture(base: BaseModel | None) -> tuple[str, str]:
    """The class that a server picks for the base, or why none is known."""
    if base is None:
        return "", "the base decides what is served, and none was given (--base DIR; config.json alone is enough)"
    if base.format == "gguf":
        return (
            "",
            "a GGUF doesn't say which class a server picks; give the Hugging Face directory (config.json is enough)",
        )
    stated = base.config.get("architectures")
    if "text_config" in base.config:
        return "", f"{base.label} is a model of several parts"
    if not isinstance(stated, list) or len(stated) != 1:
        return "", f"the config.json of {base.label} names no single class (architectures)"
    return str(stated[0]), ""


def _of_use(use: Use, target: Target, wanted: Wanted, architecture: str) -> Iterator[Fault]:
    fact = target.fact(use.feature, wanted.version, architecture)
    what = FEATURES[use.feature]
    if fact is None:
        yield Fault("unknown-feature", use.where, f"{what}: not known what {target.title} makes of it")
    elif fact.verdict != "exact":
        yield Fault(fact.verdict, use.where, f"{what}: {_does(fact, target)}")


def _does(fact: Fact, target: Target) -> str:
    told = fact.does or ("refuses it" if fact.verdict == "refused" else "serves something else")
    ratio = f" (effect ratio {fact.ratio:g}, wanted 0)" if fact.ratio is not None else ""
    return f"{target.title} {told}{ratio}{f'. {fact.do}' if fact.do else ''}"


def _of_sizes(pair: Pair, target: Target, architecture: str) -> Iterator[Fault]:
    ranks, rank = target.needs.ranks, _rank(pair.adapter)
    if ranks and rank > ranks[-1]:
        yield Fault("refused", "r", f"the largest rank is {rank}, wanted {ranks[-1]} at most by {target.title}")
    elif ranks and rank not in ranks and target.needs.otherwise:
        yield Fault("silent", "r", f"is {rank}: {target.title} {target.needs.otherwise}")
    most, rows = target.needs.vocabulary, pair.base.config.get("vocab_size") if pair.base else None
    if most and isinstance(rows, int) and rows > most and architecture in target.needs.architectures:
        yield Fault("refused", "vocab_size", f"is {rows}, wanted {most} at most by {target.title} with LoRA")


def _rank(adapter: Adapter) -> int:
    stated = adapter.config.r if adapter.config else 0
    return max((stated, *(pair.rank for pair in adapter.pairs)))


def _command(adapter: Adapter, target: Target) -> str:
    rank = _rank(adapter)
    fitting = next((allowed for allowed in target.needs.ranks if allowed >= rank), rank)
    return target.needs.command.replace("{rank}", str(fitting))
