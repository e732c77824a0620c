"""Where an adapter and its base lie: below a path, or as the adapter names its base. Never the network.

The hub's cache: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.model_names import COMMIT, HUB_NAME, cached_snapshot, original_name, without_cache
from converter.errors import NOTHING_LOOKED_AT, ConverterError
from converter.read.checkpoint import find_adapters, is_adapter
from converter.read.files import could_not_read, is_directory, is_file, read_whole

if TYPE_CHECKING:
    from converter.read.hub_address import HubAddress

_REPOSITORY: Final = r"[\w.-]+(/[\w.-]+)?"
_REVISION: Final = r"[\w.-]+(/[\w.-]+)*"
_MAX_REFERENCE_NBYTES: Final = 1000  # a commit and a newline


def locate_adapter(path: Path) -> Adapter:
    """Read the adapter at ``path``, whatever lies below it; else the only one below.

    Raises ConverterError: status 3 where there is none, 2 at several, or where one may be that can't be looked at.
    """
    found = find_adapters(path)
    if path in found.adapters:
        return read_adapter(path)
    for closed, why in found.closed:
        raise ConverterError(f"{closed}: can't be read: {why}")
    if not found.adapters:
        raise ConverterError(f"{path}: no adapter there (no adapter_config.json)", status=NOTHING_LOOKED_AT)
    if len(found.adapters) > 1:
        names = ", ".join(str(directory) for directory in found.adapters[:3])
        raise ConverterError(f"{path}: holds {len(found.adapters)} adapters ({names}, ...); give one of them")
    return read_adapter(found.adapters[0])


def read_initial_adapter(directory: Path) -> Adapter:
    """Read an adapter as it was before training, which by itself takes nothing out of the base.

    Raises ConverterError, status 2, where there is none.
    """
    with could_not_read(directory):
        is_there = is_adapter(directory)
    if not is_there:
        raise ConverterError(f"{directory}: no adapter there; give the one that was saved before training")
    initial = read_adapter(directory)
    if initial.config is None:
        return initial
    plain = initial.config._replace(raw={**initial.config.raw, "init_lora_weights": True})
    return replace(initial, config=plain)


def locate_base(adapter: Adapter) -> BaseModel:
    """Read the base that the adapter's config names. Raises ConverterError where it isn't on this machine."""
    base = find_base(None, adapter)
    if base is None:
        named = adapter.config.base_model_name_or_path if adapter.config else None
        if not named:
            raise ConverterError(f"{adapter.path}: names no base; give it with --base")
        original = original_name(without_cache(named))
        other = f", or {original}, which it was made from, or a GGUF of that" if original else ""
        raise ConverterError(
            f"{adapter.path}: its base {named!r} is not on this machine; give it with --base{other}{_how_to_get(named)}"
        )
    return base


def _how_to_get(named: str) -> str:
    """What to type where the name is a repository's: a base is fetched where the user says so, not the adapter."""
    name = without_cache(named)
    if not re.fullmatch(HUB_NAME, name) or original_name(name):
        return ""
    return f" (`--base {name} --download` fetches it)"


def find_base(option: Path | None, adapter: Adapter) -> BaseModel | None:
    """Read the base that ``--base`` gives, or else the one that the adapter's config names; None where there is none.

    Raises ConverterError, status 2, where the base can't be read.
    """
    if option:
        return read_base_model(option)
    path = named_base(adapter)
    return replace(read_base_model(path), named_by_adapter=True) if path else None


def located_base(path: Path) -> Path:
    """``path``; where nothing lies there and it is the name of a repository, what the hub's cache has of that."""
    if os.path.lexists(path):
        return path
    name, _, revision = path.as_posix().partition("@")
    return next(filter(_is_base, _cached(name, revision or None)), path)


def cached_directory(address: "HubAddress") -> Path | None:
    """What the hub's cache on this machine has at an address; None where it has nothing there."""
    for snapshot in _cached(address.repository, address.revision):
        directory = snapshot / address.folder
        if is_directory(directory):
            return directory
    return None


def cached_base(address: "HubAddress") -> Path | None:
    """The base that the hub's cache on this machine has at an address; None where it has none."""
    directory = cached_directory(address)
    return directory if directory and _is_base(directory) else None


def named_base(adapter: Adapter) -> Path | None:
    """Where the base that adapter_config.json names lies: as a path, or in the hub's local cache."""
    if adapter.config is None or not adapter.config.base_model_name_or_path:
        return None
    name, revision = adapter.config.base_model_name_or_path, adapter.config.raw.get("revision")
    return next(filter(_is_base, _candidates(name, revision if isinstance(revision, str) else None)), None)


def _is_base(path: Path) -> bool:
    return is_file(path) or is_file(path / "config.json")


def _candidates(name: str, revision: str | None) -> Iterator[Path]:
    yield Path(name)
    snapshot = cached_snapshot(name)
    if snapshot:  # of a cache elsewhere: another user's, another machine's, or of another directory
        yield from _cached(*snapshot)
    else:
        yield from _cached(name, revision)


def _cached(name: str, revision: str | None) -> Iterator[Path]:
    if re.fullmatch(_REPOSITORY, name) and ".." not in name:
        repository = hub_cache(os.environ) / f"models--{name.replace('/', '--')}"
        yield from _snapshots(repository, revision or "main")


def _snapshots(repository: Path, revision: str) -> Iterator[Path]:
    """The snapshot of a revision: a commit by itself, or a branch or tag by what the cache's refs say of it."""
    if re.fullmatch(COMMIT, revision):
        yield repository / "snapshots" / revision
    elif re.fullmatch(_REVISION, revision) and ".." not in revision:
        reference = repository / "refs" / revision
        with could_not_read(reference):
            commit = read_whole(reference, _MAX_REFERENCE_NBYTES) if is_file(reference) else b""
        if re.fullmatch(COMMIT, text := commit.decode("ascii", "replace").strip()):
            yield repository / "snapshots" / text


def hub_cache(environment: Mapping[str, str]) -> Path:
    """The cache's directory, by huggingface_hub's own variables (huggingface_hub/constants.py)."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(variable):
            return _expanded(environment[variable])
    caches = _expanded(environment.get("XDG_CACHE_HOME") or "~/.cache")
    return _expanded(environment.get("HF_HOME") or str(caches / "huggingface")) / "hub"


def _expanded(path: str) -> Path:
    """With the user's home for ~; where nobody knows that, as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path's own raises there
