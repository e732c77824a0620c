"""What a team asks of its adapters: which rules count and how, limits, and waivers that end.

``adapter-check.toml``, or ``[tool.adapter-check]`` in pyproject.toml; docs/policy.schema.json. It belongs to the
repository one works in: one that lies among an adapter's files is none, for no adapter chooses its own judge.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

from converter.diagnostics import Limits, Severity
from converter.errors import ConverterError
from converter.read.checkpoint import is_adapter
from converter.read.files import Unreadable, could_not_read, exists, read_whole, real
from converter.read.hub_address import Address
from converter.read.limits import SETTINGS_NBYTES

NAME: Final = "adapter-check.toml"
_PROJECT: Final = "pyproject.toml"
_TABLE: Final = "adapter-check"  # of pyproject.toml's [tool]
_OF_TARGETS: Final = "TG"  # the rules that speak of one server each
T = TypeVar("T")

if TYPE_CHECKING:
    from converter.targets.tables import Wanted


class Settings(NamedTuple):
    """What counts for one adapter. ``select`` and ``ignore`` are prefixes of codes, ``severity`` is by code.

    ``targets`` are the servers that have to serve it exactly.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    severity: Mapping[str, Severity] = {}
    limits: Limits = Limits()
    targets: tuple["Wanted", ...] = ()


class Waiver(NamedTuple):
    """One rule that is waived for the very bytes of one adapter, until a day.

    ``adapter`` is its digest (converter/digests.py), ``path`` where it was, for people. ``fault`` says why the waiver
    can't be used: it waives nothing then, and is reported. What a rule says of a server is waived for that ``target``.
    """

    code: str
    adapter: str
    reason: str
    expires: date | None
    path: str = ""
    fault: str | None = None
    target: str = ""


class WaiverUse(NamedTuple):
    """What a waiver did in a run, and why, where it did nothing."""

    waiver: Waiver
    state: Literal["used", "lapsed", "unusable", "other bytes", "unused"]
    why: str = ""

    def __str__(self) -> str:
        """For people, in one line."""
        of = self.waiver.path or self.waiver.adapter[:12] or "an adapter"
        on = f" on {self.waiver.target}" if self.waiver.target else ""
        return f"waiver of {self.waiver.code or 'a rule'}{on} for {of}: {self.state}{self.why and f', {self.why}'}"


class Policy(NamedTuple):
    """A policy file. ``by_path`` are settings for paths that match a pattern, read from the policy's directory."""

    path: Path
    settings: Settings = Settings()
    fail_on: Severity = Severity.ERROR
    by_path: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    waivers: tuple[Waiver, ...] = ()

    def settings_for(self, adapter: Path | Address) -> Settings:
        """The settings of an adapter: the policy's own, changed by each pattern that its path matches, in order."""
        settings, name = self.settings, path_from(self.path, adapter)
        for pattern, table in self.by_path:
            if fnmatchcase(name, pattern):
                settings = _changed(settings, _Reader(self.path, table, f"by-path.{pattern}"))
        return settings


def path_from(policy: Path, adapter: Path | Address) -> str:
    """An adapter's path as a policy file names it: from its directory, or whole where it lies elsewhere."""
    if not isinstance(adapter, Path):
        return str(adapter)
    here, adapter = real(policy).parent, real(adapter)
    return adapter.relative_to(here).as_posix() if adapter.is_relative_to(here) else adapter.as_posix()


# --- Finding it -------------------------------------------------------------------------------------------------------


def find_policy(directory: Path) -> Policy | None:
    """The policy nearest to ``directory``, going up to the root of its repository.

    Raises ConverterError where there is one that can't be used, or that lies among an adapter's files.
    """
    for place in _upwards(real(directory)):
        for name in (NAME, _PROJECT):
            path = place / name
            if exists(path) and (name == NAME or _has_table(path)):
                if is_adapter(place):
                    raise ConverterError(
                        f"{path}: lies among an adapter's files, and no adapter chooses its own judge; "
                        "give --config FILE or --no-config"
                    )
                return read_policy(path)
    return None


def _upwards(directory: Path) -> Iterator[Path]:
    """The directory and those above it in its repository; without a repository, itself alone."""
    places = [directory, *directory.parents]
    root = next((place for place in places if exists(place / ".git")), directory)
    return (place for place in places if place.is_relative_to(root))


def _has_table(path: Path) -> bool:
    return _TABLE in _toml(path).get("tool", {})


def read_policy(path: Path) -> Policy:
    """The policy of a file: a pyproject.toml has it under ``[tool.adapter-check]``.

    Raises ConverterError, naming the key, where anything in it isn't known or isn't what it should be. A waiver that
    can't be used is none of these.
    """
    table = _toml(path)
    if path.name == _PROJECT:
        table = table.get("tool", {}).get(_TABLE, {})
    read = _Reader(path, table)
    settings = _changed(Settings(), read, {"fail-on", "by-path", "waivers"})
    by_path = read.list("by-path", _table, "tables with a path")
    for entry in by_path:  # whatever is wrong in it is said now, whether or not an adapter matches it
        _changed(settings, _Reader(path, entry, "by-path"))
    waivers = tuple(_waiver(entry) for entry in read.list("waivers", _table, "tables"))
    fail_on = read.one("fail-on", _severity, '"error" or "warning"') or Severity.ERROR
    return Policy(path, settings, fail_on, tuple((_pattern(path, entry), entry) for entry in by_path), waivers)


def _toml(path: Path) -> dict[str, Any]:
    try:
        with could_not_read(path):
            return tomllib.loads(read_whole(path, SETTINGS_NBYTES).decode())
    except (Unreadable, ValueError, RecursionError) as error:
        raise ConverterError(f"{path}: is no policy: {error}") from error


def waivers_table(path: Path) -> str:
    """The name of the waivers' table in a policy file of this name."""
    return f"tool.{_TABLE}.waivers" if path.name == _PROJECT else "waivers"


# --- Reading it -------------------------------------------------------------------------------------------------------


class _Reader:
    """A table of the policy; what is not as it should be is told by file and key."""

    def __init__(self, path: Path, table: Mapping[str, Any], name: str = "") -> None:
        self._path, self._table, self._name = path, table, name

    def require_known(self, known: set[str]) -> None:
        for key in self._table:
            if key not in known:
                raise self._fault(key, "is not known", f"one of {', '.join(sorted(known))}")

    def one(self, key: str, parse: Callable[[Any], T | None], wanted: str) -> T | None:
        if key not in self._table:
            return None
        value = parse(self._table[key])
        if value is None:
            raise self._fault(key, f"is {self._table[key]!r}", wanted)
        return value

    def list(self, key: str, parse: Callable[[Any], T | None], wanted: str) -> tuple[T, ...]:
        values = self._table.get(key, [])
        parsed = [parse(value) for value in values] if isinstance(values, list) else [None]
        found = tuple(value for value in parsed if value is not None)
        if len(found) < len(parsed):
            raise self._fault(key, f"is {values!r}", f"a list of {wanted}")
        return found

    def table(self, key: str) -> "_Reader":
        value = self._table.get(key, {})
        if not isinstance(value, dict):
            raise self._fault(key, f"is {value!r}", "a table")
        return _Reader(self._path, value, f"{self._name}.{key}".strip("."))

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def _fault(self, key: str, found: str, wanted: str) -> ConverterError:
        where = f"{self._name}.{key}".strip(".")
        return ConverterError(f"{self._path}: {where} {found[:200]}, wanted {wanted}")


def _changed(settings: Settings, read: _Reader, others: Sequence[str] | set[str] = ("path",)) -> Settings:
    """The settings with what a table says instead; what it ignores, and its severities, come on top."""
    read.require_known({*others, "select", "ignore", "severity", "limits", "targets"})
    levels = read.table("severity")
    severity = {code: levels.one(code, _severity, '"error" or "warning"') for code in levels}
    return Settings(
        read.list("select", _text, "prefixes of codes") or settings.select,
        (*settings.ignore, *read.list("ignore", _text, "prefixes of codes")),
        {**settings.severity, **{code: level for code, level in severity.items() if level}},
        _limits(settings.limits, read.table("limits")),
        read.list("targets", _target, "targets, such as vllm or vllm@0.32.0") or settings.targets,
    )


def _limits(limits: Limits, read: _Reader) -> Limits:
    read.require_known({"rank", "size", "bases", "base-fingerprints", "forbidden-modules", "trust-named-base"})
    trusts = read.one("trust-named-base", _flag, "true or false")
    return Limits(
        read.one("rank", _count, "a whole number of 1 and more") or limits.rank,
        read.one("size", _nbytes, 'a number of bytes, or a size such as "200 MB"') or limits.nbytes,
        read.list("bases", _text, "names of models, such as org/*") or limits.bases,
        read.list("base-fingerprints", _text, "fingerprints") or limits.base_fingerprints,
        read.list("forbidden-modules", _text, "patterns of modules, such as lm_head") or limits.forbidden_modules,
        limits.trust_named_base if trusts is None else trusts,
    )


def _waiver(entry: Mapping[str, Any]) -> Waiver:
    """A waiver; one that lacks anything, or whose day can't be read, waives nothing."""
    code, adapter, reason, path = (str(entry.get(key, "")) for key in ("code", "adapter", "reason", "path"))
    expires = _date(entry.get("expires"))
    target = str(entry.get("target", ""))
    unknown = sorted(set(entry) - {"code", "adapter", "reason", "expires", "path", "target"})
    wanted = ("code", "adapter", "reason", *(("target",) if code.startswith(_OF_TARGETS) else ()))
    missing = [key for key in wanted if not entry.get(key)]
    fault: str | None
    if unknown:
        fault = f"has {unknown[0]!r}, which is not known"
    elif missing:
        fault = f"has no {missing[0]}"
    elif target and not code.startswith(_OF_TARGETS):
        fault = f"names the target {target}, which {code} is not about"
    else:
        fault = None if expires else f"expires on {entry.get('expires')!r}, wanted a day such as 2027-01-31"
    return Waiver(code, adapter, reason, expires, path, fault, target)


_UNITS: Final = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def _nbytes(value: Any) -> int | None:
    if not isinstance(value, str):
        return _count(value)
    number, _, unit = value.strip().partition(" ")
    factor = _UNITS.get(unit.strip().upper())
    return int(number) * factor if factor and number.isascii() and number.isdigit() and len(number) < 10 else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 1 else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _target(value: Any) -> "Wanted | None":
    from converter.targets.tables import wanted

    try:
        return wanted(value) if isinstance(value, str) else None
    except ConverterError:
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _table(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _severity(value: Any) -> Severity | None:
    return next((severity for severity in Severity if severity.value == value), None)


def _date(value: Any) -> date | None:
    """A day, as TOML's own date or as text."""
    if type(value) is date:
        return value
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _pattern(path: Path, entry: Mapping[str, Any]) -> str:
    pattern = _Reader(path, entry, "by-path").one("path", _text, "a pattern")
    if pattern is None:
        raise ConverterError(f"{path}: by-path has no path, wanted a pattern such as experiments/*")
    return pattern
