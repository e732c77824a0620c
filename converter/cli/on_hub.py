"""What an option names, as it is on this machine or, with ``--download``, on the hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.locate import cached_base, cached_directory, locate_adapter
from converter.errors import ConverterError

if TYPE_CHECKING:
    from converter.read.hub_address import HubAddress


def adapter_named(given: "Path | HubAddress", *, download: bool) -> Adapter:
    """Read an adapter with its numbers. Raises ConverterError as ``locate_adapter``, or where it can't be had."""
    if isinstance(given, Path):
        return locate_adapter(given)
    if download:
        from converter.hub import download_adapter

        return locate_adapter(download_adapter(given))
    cached = cached_directory(given)
    if cached is None:
        raise ConverterError(f"{given}: is not in the hub's cache on this machine; --download fetches it")
    return locate_adapter(cached)


def base_named(given: "Path | HubAddress", *, download: bool, weights: bool) -> BaseModel:
    """Read a base, with its weights where they are needed. Raises ConverterError where it can't be had."""
    if isinstance(given, Path):
        return read_base_model(given)
    if not download:
        return read_base_model(_here(given))
    from converter.hub import download_base, read_base_on_hub

    return read_base_model(download_base(given)) if weights else read_base_on_hub(given)


def base_path(given: "Path | HubAddress", *, download: bool) -> Path:
    """Where a base lies, with its weights."""
    if isinstance(given, Path):
        return given
    if not download:
        return _here(given)
    from converter.hub import download_base

    return download_base(given)


def _here(address: "HubAddress") -> Path:
    cached = cached_base(address)
    if cached is None:
        raise ConverterError(
            f"{address.name}: no such base; give a Hugging Face directory, a GGUF file, or the name of a model in the "
            "hub's cache with --base; --download fetches it from the hub"
        )
    return cached
