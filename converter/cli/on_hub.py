"""What an option names, as it is on this machine or, with ``--download``, on the hub or in its bucket."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.locate import cached_base, cached_directory, locate_adapter
from converter.errors import ConverterError

if TYPE_CHECKING:
    from converter.read.hub_address import Address, HubAddress


def adapter_named(given: "Path | Address", *, download: bool) -> Adapter:
    """Read an adapter with its numbers. Raises ConverterError as ``locate_adapter``, or where it can't be had."""
    if isinstance(given, Path):
        return locate_adapter(given)
    if download:
        from converter.hub import download_adapter

        with _progress() as tell:
            return locate_adapter(download_adapter(given, tell))
    cached = cached_directory(_on_hub(given))
    if cached is None:
        raise ConverterError(f"{given}: is not in the hub's cache on this machine; --download fetches it")
    return locate_adapter(cached)


def base_named(given: "Path | Address", *, download: bool, weights: bool) -> BaseModel:
    """Read a base, with its weights where they are needed. Raises ConverterError where it can't be had."""
    if isinstance(given, Path):
        return read_base_model(given)
    if not download:
        return read_base_model(_here(given))
    if weights:
        return read_base_model(base_path(given, download=True))
    from converter.hub import read_base_on_hub

    return read_base_on_hub(given)


def base_path(given: "Path | Address", *, download: bool) -> Path:
    """Where a base lies, with its weights."""
    if isinstance(given, Path):
        return given
    if not download:
        return _here(given)
    from converter.hub import download_base

    with _progress() as tell:
        return download_base(given, tell)


def _here(address: "Address") -> Path:
    cached = cached_base(_on_hub(address))
    if cached is None:
        raise ConverterError(
            f"{address.name}: no such base; give a Hugging Face directory, a GGUF file, or the name of a model in the "
            "hub's cache with --base; --download fetches it from the hub"
        )
    return cached


def _on_hub(address: "Address") -> "HubAddress":
    """The address, where there is a cache that tells what lies there; what a bucket holds now it alone tells."""
    from converter.read.hub_address import HubAddress

    if isinstance(address, HubAddress):
        return address
    raise ConverterError(f"{address}: lies in a bucket, which is read with --download alone")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal for what is fetched of a bucket; it begins with that, since huggingface_hub draws its own."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("downloading")

    def tell(done: int, of: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=of)

    try:
        yield tell
    finally:
        bar.stop()
