"""A manifest's lines to rows: what each column means, and what stands for an empty cell.

A path of a manifest is relative to the manifest, wherever the command runs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from converter.diagnostics import Deployment
from converter.errors import ConverterError
from converter.fleet.cells import Cells
from converter.fleet.deployment_cells import COLUMNS as DEPLOYMENT_COLUMNS
from converter.fleet.deployment_cells import QUANTIZE_COLUMNS, deployment_of, split_of
from converter.fleet.manifest_files import read_lines
from converter.fleet.rows import Row
from converter.read.checkpoint import find_adapters
from converter.read.hub_address import HubAddress

COLUMNS: Final = (
    "adapter", "base", "output", "untied_base", "checkpoint", "initial_adapter", "rename_keys", "text_only",
    "verify", "push", *DEPLOYMENT_COLUMNS, *QUANTIZE_COLUMNS,
)  # fmt: skip


class Defaults(NamedTuple):
    """What stands for an empty cell. ``outputs`` is the directory of outputs that have no name of their own."""

    base: Path | None = None
    deployment: Deployment = Deployment()
    outputs: Path | None = None
    untied_base: Path | None = None
    verify: bool = False
    push: Path | HubAddress | None = None

    def shared(self, deployment: Deployment) -> Path | None:
        """The untied base that a deployment has together with others."""
        return self.untied_base if deployment.kind == "untie-lora" else None

    def output(self, name: Path, deployment: Deployment, untied_base: Path | None) -> Path:
        """The output of an adapter that has no name for it: a directory where two files are written."""
        assert self.outputs  # noqa: S101  who asks has looked
        place = self.outputs.absolute() / name
        is_directory = deployment.kind == "untie-lora" and not untied_base
        return place if is_directory else place.with_name(f"{place.name}.gguf")


def read_manifest(path: Path, defaults: Defaults) -> Iterator[Row]:
    """The rows of a manifest. Raises ConverterError naming file, line, column, what was found and what was wanted."""
    directory = path.absolute().parent
    for line in read_lines(path, frozenset(COLUMNS)):
        yield _row(Cells(line, directory), defaults)


def discovered(directory: Path, defaults: Defaults) -> tuple[tuple[Row, ...], tuple[tuple[Path, str], ...]]:
    """A row for every adapter at or below a directory, and what may not be looked into, with the reason.

    Raises ConverterError where there is no directory for outputs.
    """
    if defaults.outputs is None:
        raise ConverterError(f"{directory}: is a directory to look for adapters in; say with --output where they go")
    top = directory.absolute()
    found = find_adapters(top)
    named = [path for path in found.adapters if _is_text(path)]
    nameless = [(path, "its name is not UTF-8") for path in found.adapters if not _is_text(path)]
    deployment = defaults.deployment
    untied = defaults.shared(deployment)
    rows = tuple(
        Row(
            str(path), path, defaults.base, deployment, defaults.output(_below(top, path), deployment, untied),
            untied_base=untied, verify=defaults.verify, push=defaults.push,
        )
        for path in named
    )  # fmt: skip
    return rows, (*found.closed, *nameless)


def _is_text(path: Path) -> bool:
    """Whether a path can stand in the table."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _below(top: Path, adapter: Path) -> Path:
    return adapter.relative_to(top) if adapter != top else Path(top.name)


def _row(cells: Cells, defaults: Defaults) -> Row:
    adapter = cells.path("adapter")
    if adapter is None:
        raise cells.wrong("adapter", "an adapter's directory")
    deployment = deployment_of(cells, defaults.deployment)
    untied_base = _untied_base(cells, deployment) or defaults.shared(deployment)
    return Row(
        cells.where, adapter, cells.base() or defaults.base, deployment,
        _output(cells, adapter, deployment, untied_base, defaults), cells.path("initial_adapter"),
        cells.switch("rename_keys"), cells.switch("text_only"), _checkpoint(cells, defaults),
        split_of(cells, deployment), untied_base, cells.switch("verify", default=defaults.verify),
        cells.place("push") or defaults.push,
    )  # fmt: skip


def _untied_base(cells: Cells, deployment: Deployment) -> Path | None:
    path = cells.path("untied_base")
    if path and deployment.kind != "untie-lora":
        raise cells.wrong("untied_base", "none: it is for untie-lora")
    return path


def _checkpoint(cells: Cells, defaults: Defaults) -> Path | None:
    path = cells.path("checkpoint")
    if path and not (cells.given("base") or defaults.base):
        raise cells.wrong("checkpoint", "none: it goes with a base, the GGUF that was made from it")
    return path


def _output(cells: Cells, adapter: Path, deployment: Deployment, untied_base: Path | None, defaults: Defaults) -> Path:
    output = cells.path("output")
    if output is None and defaults.outputs is None:
        raise cells.wrong("output", "a path: give the directory of all outputs with --output, or fill in the column")
    return output or defaults.output(Path(adapter.name), deployment, untied_base)
