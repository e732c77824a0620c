"""Which base a command works with: --base, or the one the adapter names if it lies on this machine. Never the network.

The hub's cache: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.read.files import is_file, read_whole

_REPOSITORY: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")
_REVISION: Final = re.compile(r"[\w.-]+(/[\w.-]+)*")
_MAX_REFERENCE_NBYTES: Final = 1000  # a commit and a newline
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def find_base(option: Path | None, adapter: Adapter) -> BaseModel | None:
    """Read the base that ``--base`` gives, or else the one that the adapter's config names; None where there is none.

    Raises ConverterError, status 2, where the base can't be read.
    """
    path = option or named_base(adapter)
    return read_base_model(path) if path else None


def named_base(adapter: Adapter) -> Path | None:
    """Where the base that adapter_config.json names lies: as a path, or in the hub's local cache."""
    if adapter.config is None or not adapter.config.base_model_name_or_path:
        return None
    name, revision = adapter.config.base_model_name_or_path, adapter.config.raw.get("revision")
    for path in _candidates(name, revision if isinstance(revision, str) else None, os.environ):
        if is_file(path) or is_file(path / "config.json"):
            return path
    return None


def _candidates(name: str, revision: str | None, environment: Mapping[str, str]) -> Iterator[Path]:
    yield Path(name)
    if _REPOSITORY.fullmatch(name) and ".." not in name:
        yield from _snapshots(hub_cache(environment) / f"models--{name.replace('/', '--')}", revision or "main")


def _snapshots(repository: Path, revision: str) -> Iterator[Path]:
    """The snapshot of a revision: a commit by itself, or a branch or tag by what the cache's refs say of it."""
    if _COMMIT.fullmatch(revision):
        yield repository / "snapshots" / revision
    elif _REVISION.fullmatch(revision) and ".." not in revision:
        reference = repository / "refs" / revision
        commit = (
            read_whole(reference, _MAX_REFERENCE_NBYTES).decode("ascii", "replace").strip()
            if is_file(reference)
            else ""
        )
        if _COMMIT.fullmatch(commit):
            yield repository / "snapshots" / commit


def hub_cache(environment: Mapping[str, str]) -> Path:
    """The cache's directory, by huggingface_hub's own variables (huggingface_hub/constants.py)."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environment.get(variable):
            return Path(environment[variable]).expanduser()
    caches = Path(environment.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(environment.get("HF_HOME") or caches / "huggingface")
    return home.expanduser() / "hub"
