"""What a judgement is made of: deployments, rules, problems, findings, reports. Plain data."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from converter.derive.adapter import Adapter
    from converter.derive.base_model import BaseModel
    from converter.read.hub_address import Address
    from converter.targets.judged import Judged

Kind = Literal["lora", "model", "untie-lora", "untie-model"]

LORA: Final = frozenset[Kind]({"lora", "untie-lora"})
MODEL: Final = frozenset[Kind]({"model", "untie-model"})
TIED: Final = frozenset[Kind]({"lora", "model"})
UNTIED: Final = frozenset[Kind]({"untie-lora", "untie-model"})
EVERY: Final = LORA | MODEL
WHOLE_BASE: Final = MODEL | frozenset[Kind]({"untie-lora"})  # what is written from all of the base's weights

HOSTS: Final = ("auto", "gemma3", "spark2_5", "wide", "grok", "native")


class Quantize(NamedTuple):
    """How a merged model is quantised: what llama-quantize's options of these names say. Types have GGML's names.

    ``file_type`` is llama-quantize's name of a mixture (Q4_K_M). ``tensor_types`` are patterns and types: the first
    pattern that is found in a tensor's name gives its type. ``allow_requantize`` takes a base that is quantised.
    ``least_kept`` is ours: the share of its delta that rounding has to keep of every tensor.
    """

    file_type: str
    imatrix: Path | None = None
    tensor_types: tuple[tuple[str, str], ...] = ()
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    allow_requantize: bool = False
    least_kept: float = 0.5


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the adapter is to become: the intent that decides which findings matter.

    ``host`` runs an untied head that llama.cpp's own graph wouldn't read; None and auto leave the choice to the plan.
    A model is written as ``outtype`` or as ``quantize`` says.
    """

    to: Literal["lora", "model"] = "lora"
    untie: bool = False
    outtype: str | None = None
    host: str | None = None
    quantize: Quantize | None = None

    @classmethod
    def of(cls, kind: Kind) -> "Deployment":
        """The deployment of this kind, with nothing else chosen."""
        return cls("lora" if kind in LORA else "model", kind in UNTIED)

    @property
    def kind(self) -> Kind:
        """The deployment as findings name it in ``blocks``."""
        if self.untie:
            return "untie-lora" if self.to == "lora" else "untie-model"
        return self.to

    @property
    def options(self) -> str:
        """The deployment as the command line spells it."""
        host = "" if self.host in (None, "auto") else f" --host {self.host}"
        quantize = f" --quantize {self.quantize.file_type}" if self.quantize else ""
        return OPTIONS[self.kind] + host + quantize


OPTIONS: Final[dict[Kind, str]] = {
    "lora": "--to lora",
    "model": "--to model",
    "untie-lora": "--untie --to lora",
    "untie-model": "--untie --to model",
}


class Severity(Enum):
    """An error blocks the deployments it names; a warning blocks none."""

    ERROR = "error"
    WARNING = "warning"


class Problem(NamedTuple):
    """What a check yields: where (a key, a module, a config field), what was found and wanted, what it blocks.

    ``target`` is the server that it is about, where it is about one.
    """

    where: str
    message: str
    blocks: frozenset[Kind] = EVERY
    target: str = ""


class Limits(NamedTuple):
    """What no adapter may exceed; None and () where nothing is said.

    ``bases`` are patterns of base_model_name_or_path, ``base_fingerprints`` those of converter/fingerprint.py,
    ``forbidden_modules`` patterns of module paths. ``trust_named_base``: the base that an adapter names may show that
    its head is a tensor of its own.
    """

    rank: int | None = None
    nbytes: int | None = None
    bases: tuple[str, ...] = ()
    base_fingerprints: tuple[str, ...] = ()
    forbidden_modules: tuple[str, ...] = ()
    trust_named_base: bool = False


class CannotLookError(Exception):
    """Raised by a check that lacks what it compares with; the message says what. Its rule is reported as skipped."""


# The inputs a check needs. Where one can't be had, its rule is reported as skipped, with the reason.
# Plain classes: adapter-check is over in a tenth of a second, and six NamedTuples take a fiftieth of that.
class AdapterCheck:
    """Looks at what the adapter's config and headers say, and at nothing else: no file, and not where they lie."""

    __slots__ = __match_args__ = ("run",)

    def __init__(self, run: "Callable[[Adapter], Iterable[Problem]]") -> None:
        """Of this function."""
        self.run = run


class DirectoryCheck:
    """Looks at the files of the adapter's directory too."""

    __slots__ = __match_args__ = ("run",)

    def __init__(self, run: "Callable[[Adapter], Iterable[Problem]]") -> None:
        """Of this function."""
        self.run = run


class BaseCheck:
    """Looks at the adapter beside its base."""

    __slots__ = __match_args__ = ("run",)

    def __init__(self, run: "Callable[[Adapter, BaseModel], Iterable[Problem]]") -> None:
        """Of this function."""
        self.run = run


class EitherCheck:
    """Looks at the adapter, and at its base where there is one."""

    __slots__ = __match_args__ = ("run",)

    def __init__(self, run: "Callable[[Adapter, BaseModel | None], Iterable[Problem]]") -> None:
        """Of this function."""
        self.run = run


class NoBaseCheck:
    """Speaks where a base would be needed and none is given; looks at what an AdapterCheck looks at."""

    __slots__ = __match_args__ = ("run",)

    def __init__(self, run: "Callable[[Adapter], Iterable[Problem]]") -> None:
        """Of this function."""
        self.run = run


class ValuesCheck:
    """Reads the adapter's numbers (not by ``--headers-only``; adapter-to-gguf always does)."""

    __slots__ = __match_args__ = ("run",)

    def __init__(self, run: "Callable[[Adapter], Iterable[Problem]]") -> None:
        """Of this function."""
        self.run = run


class BaseValuesCheck:
    """Reads the numbers of adapter and base."""

    __slots__ = __match_args__ = ("run",)

    def __init__(self, run: "Callable[[Adapter, BaseModel], Iterable[Problem]]") -> None:
        """Of this function."""
        self.run = run


class PolicyCheck:
    """Compares an adapter with the limits of the user's policy; its base too, where there is one."""

    __slots__ = __match_args__ = ("run",)

    def __init__(self, run: "Callable[[Adapter, BaseModel | None, Limits], Iterable[Problem]]") -> None:
        """Of this function."""
        self.run = run


class TargetCheck:
    """Looks at what the servers that were asked for make of the adapter."""

    __slots__ = __match_args__ = ("run",)

    def __init__(self, run: "Callable[[tuple[Judged, ...]], Iterable[Problem]]") -> None:
        """Of this function."""
        self.run = run


class WhileWriting:
    """Found by adapter-to-gguf in what it writes, too late for adapter-check; ``module`` holds the documentation."""

    __slots__ = __match_args__ = ("module",)

    def __init__(self, module: str) -> None:
        """Of this module."""
        self.module = module


Check = (
    AdapterCheck
    | DirectoryCheck
    | BaseCheck
    | EitherCheck
    | NoBaseCheck
    | ValuesCheck
    | BaseValuesCheck
    | PolicyCheck
    | TargetCheck
    | WhileWriting
)


class Rule(NamedTuple):
    """One rule. ``name`` names the fault; the docstring of its module is its documentation.

    ``gguf``: it is about GGUF files, llama.cpp or our own conversion. A server that takes PEFT's directory doesn't meet
    what it finds.
    """

    code: str
    name: str
    severity: Severity
    check: Check
    gguf: bool = False


class Finding(NamedTuple):
    """A problem with its rule's code and severity stamped on.

    ``severity`` is the rule's, or what the user's policy makes of it. ``forbids`` says that a conversion refuses what
    the finding blocks, whatever the policy: it knows none. ``note`` says why a finding is left out. ``target`` and
    ``gguf`` are the problem's and the rule's.
    """

    code: str
    name: str
    severity: Severity
    where: str
    message: str
    blocks: frozenset[Kind]
    forbids: bool = True
    note: str = ""
    target: str = ""
    gguf: bool = False

    @property
    def waived_as(self) -> tuple[str, str]:
        """What a waiver has to name: the rule, and the target where it is about one."""
        return self.code, self.target


class Skipped(NamedTuple):
    """A rule that was not applied, and why. Skipped is not passed; ``by_choice`` says that the user left it out."""

    code: str
    name: str
    reason: str
    by_choice: bool = False
    gguf: bool = False


class Serving(NamedTuple):
    """A server that was asked for, as ``--target`` spells it with its version, and in which form it takes the adapter.

    ``evidence`` says how its answer is known, ``needs`` what it has to be started with, ``note`` what else is to know.
    """

    name: str
    form: Literal["peft", "lora", "model"]
    evidence: str
    needs: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The judgement of one adapter for one deployment, or for the servers that were asked for, or for both.

    ``hidden`` is what rules found that the user left out or waived: it doesn't count for the verdict, but it still
    forbids.
    ``base_checked_by`` is what the base was compared by beside its shapes; empty where the adapter brings nothing.
    ``base_named_by_adapter``: the user named none. ``path`` is the adapter's directory, or its address on a hub.
    ``deployment_asked``: not only ``targets`` were.
    ``read_with`` are the options by which the adapter is read so.
    """

    path: "Path | Address"
    base: str | None
    deployment: Deployment
    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    hidden: tuple[Finding, ...] = ()
    base_checked_by: tuple[str, ...] = ()
    base_named_by_adapter: bool = False
    targets: tuple[Serving, ...] = ()
    deployment_asked: bool = True
    read_with: tuple[str, ...] = ()

    @property
    def stopping(self) -> tuple[Finding, ...]:
        """The findings by which the deployment, or a target, doesn't pass."""
        return tuple(finding for finding in self.findings if self.is_stopped_by(finding))

    @property
    def passed(self) -> bool:
        """Whether nothing stops what was asked for."""
        return not self.stopping

    def is_stopped_by(self, finding: Finding) -> bool:
        """Whether a finding stops the deployment that was asked for, or a target."""
        if finding.severity is not Severity.ERROR:
            return False
        stops_deployment = self.deployment_asked and self.deployment.kind in finding.blocks
        return stops_deployment or any(self._stops(finding, target) for target in self.targets)

    def stopping_target(self, target: Serving) -> tuple[Finding, ...]:
        """The findings by which a target doesn't serve the adapter exactly, or isn't known to."""
        return tuple(found for found in self.stopping if self._stops(found, target))

    def _stops(self, finding: Finding, target: Serving) -> bool:
        if finding.target:
            return finding.target == target.name
        if target.form == "peft":
            return bool(finding.blocks) and not finding.gguf
        return Deployment(target.form, self.deployment.untie).kind in finding.blocks

    @property
    def refused(self) -> tuple[str, ...]:
        """What of it doesn't pass."""
        stops_deployment = self.deployment_asked and any(
            found.severity is Severity.ERROR and self.deployment.kind in found.blocks for found in self.findings
        )
        targets = (target.name for target in self.targets if self.stopping_target(target))
        return (*((self.deployment.options,) if stops_deployment else ()), *targets)

    @property
    def asks_gguf(self) -> bool:
        """Whether a GGUF was asked for: else what rules say of GGUFs alone doesn't count."""
        return self.deployment_asked or any(target.form != "peft" for target in self.targets)

    @property
    def asked(self) -> tuple[str, ...]:
        """All that was asked for, as it was: the deployment's options and the targets."""
        return (*((self.deployment.options,) if self.deployment_asked else ()), *(it.name for it in self.targets))

    def blockers(self, kind: Kind) -> tuple[str, ...]:
        """The codes by which a conversion refuses a kind of deployment, in order, each once."""
        found = (finding for finding in (*self.findings, *self.hidden) if finding.forbids and kind in finding.blocks)
        return tuple(dict.fromkeys(finding.code for finding in found))
