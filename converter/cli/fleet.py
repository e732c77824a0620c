"""``adapter-fleet``: many adapters to GGUF, on Ray."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from converter.cli.command import Command
from converter.cli.extras import need_extra
from converter.cli.options import ADAPTER, BASE, FORMAT, PATH
from converter.cli.quantize import quantize_of
from converter.diagnostics import HOSTS, Deployment
from converter.errors import NOTHING_LOOKED_AT, ConverterError
from converter.fleet.json_data import Files, fleet_data
from converter.fleet.manifest import COLUMNS, Defaults
from converter.fleet.on_ray import Cluster
from converter.planning.file_types import FILE_TYPES
from converter.planning.outtypes import OUTTYPES
from converter.read.files import is_directory, is_same
from converter.report.printable import json_line, printable
from converter.version import __version__

if TYPE_CHECKING:
    from converter.fleet.rows import Row, Steps
    from converter.fleet.run import Result
    from converter.fleet.table import Table
    from converter.read.hub_address import Address, HubAddress

COMMAND = "adapter-fleet"
_EXTRA = ("filelock", "pyarrow", "ray")
_HUB_EXTRA = ("httpx2", "huggingface_hub")
_VERIFY_EXTRA = ("peft", "safetensors", "torch", "transformers", "xllamacpp")

_HELP = f"""Convert every adapter of a manifest, or below a directory, as adapter-to-gguf would; a second run goes on.

MANIFEST is a .csv, .jsonl or .parquet file with some of the columns {", ".join(COLUMNS)}, of which adapter is needed;
its paths are relative to it.
What came of each adapter stands in a table (SQLite), by which the same command, run again, does only what isn't done,
failed, or has changed. Exit status: 0 all are fine, 1 some are refused, 2 some could not be done, 3 there was none; the
worst of them, 2 before 3 before 1.
"""


@click.command(COMMAND, cls=Command, help=_HELP)
@click.argument("manifest", type=PATH)
@click.option("--base", type=BASE, help="Base of the rows that name none. Default: the one that the adapter names.")
@click.option("--to", type=click.Choice(["lora", "model"]), help="As for adapter-to-gguf, of rows without deployment.")
@click.option("--untie", is_flag=True, help="As for adapter-to-gguf, of rows without deployment.")
@click.option("--outtype", type=click.Choice(OUTTYPES), help="As for adapter-to-gguf, of rows without outtype.")
@click.option(
    "--quantize",
    "file_type",
    type=click.Choice(tuple(FILE_TYPES), case_sensitive=False),
    help="As for adapter-to-gguf, of merged models without quantize.",
)
@click.option("--imatrix", type=PATH, help="As for adapter-to-gguf; with --quantize.")
@click.option("--host", type=click.Choice(HOSTS), help="As for adapter-to-gguf, of rows without host.")
@click.option(
    "--untied-base",
    type=PATH,
    help="With untie-lora: one file for the untied base of all rows that name none. Default: one beside each LoRA.",
)
@click.option("-o", "--output", type=PATH, help="Directory of the outputs that the manifest doesn't name.")
@click.option("--table", type=PATH, help="Default: MANIFEST with .sqlite for its ending; in --output for a directory.")
@click.option("--verify", is_flag=True, help="Prove each one, as adapter-verify does (extra verify).")
@click.option("--prompts", type=PATH, help="Texts for --verify, one a line. Default: a built-in set.")
@click.option(
    "--push",
    type=ADAPTER,
    help="Directory into which each output that is fine is copied, or hf://ORG/NAME[@BRANCH][/FOLDER], to which it is "
    "uploaded (extra hub).",
)
@click.option("--address", metavar="HOST:PORT", help="Of a Ray cluster (or auto). Default: Ray is started here.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Adapters at a time. Default: one for each CPU.")
@click.option(
    "--retries", type=click.IntRange(0), default=3, show_default=True, help="When a process or a node has died."
)
@click.option("--html", type=PATH, help="Write a summary for people.")
@click.option("--export", type=PATH, help="Write the table of this manifest's rows as .csv or .parquet.")
@FORMAT
@click.version_option(__version__)
def main(
    manifest: Path,
    base: Path | None,
    to: Literal["lora", "model"] | None,
    untie: bool,
    outtype: str | None,
    file_type: str | None,
    imatrix: Path | None,
    host: str | None,
    untied_base: Path | None,
    output: Path | None,
    table: Path | None,
    verify: bool,
    prompts: Path | None,
    push: "Path | Address | None",
    address: str | None,
    workers: int | None,
    retries: int,
    html: Path | None,
    export: Path | None,
    style: str,
) -> None:
    if host and not untie:
        raise ConverterError("--host needs --untie: it is for a head apart from the embedding")
    need_extra("fleet", *_EXTRA)
    path = table or (output / "fleet.sqlite" if output and is_directory(manifest) else manifest.with_suffix(".sqlite"))
    _check(manifest, path, html, export, address)
    quantize = quantize_of(file_type, imatrix and imatrix.absolute(), (), None, None, False, None)
    kind: Literal["lora", "model"] = to or ("model" if untie or quantize else "lora")
    deployment = Deployment(kind, untie, outtype or "auto", host, quantize)
    defaults = Defaults(
        base and base.absolute(), deployment, output, untied_base and untied_base.absolute(), verify, _place(push)
    )
    rows, closed = _rows(manifest, defaults)
    _need_extras(rows)
    if prompts and not any(row.verify for row in rows):
        raise ConverterError("--prompts needs --verify")
    steps = _steps(manifest, output, prompts)
    with _opened(path, rows, steps) as opened:
        result = _run(rows, steps, opened, Cluster(address, workers, retries))
        result = result._replace(closed=tuple(closed))
        files = Files(manifest, path, html, export)
        _write(opened, rows, files)
        if style == "json":
            click.echo(json_line(fleet_data(result, opened, rows, files)))
        else:
            click.echo("\n".join((result.words, *_named(files))))
    sys.exit(result.status)


def _check(manifest: Path, table: Path, html: Path | None, export: Path | None, address: str | None) -> None:
    """Raise ConverterError, before anything starts, at what would end the run behind it, or at no cluster."""
    from converter.fleet.export import check_export
    from converter.fleet.on_ray import check_address

    for path in filter(None, (table, html, export)):
        if is_same(path, manifest):
            raise ConverterError(f"{path}: is the manifest; give another name")
        if path is not table and not path.parent.is_dir():
            raise ConverterError(f"{path}: there is no such directory; make it first")
    if export:
        check_export(export)
    if address:
        check_address(address)


def _write(table: "Table", rows: "Sequence[Row]", files: Files) -> None:
    if files.export:
        from converter.fleet.export import write_export

        write_export(files.export, table, rows)
    if files.report:
        from converter.fleet.html import write_html

        write_html(files.report, table, rows, files.manifest)


def _named(files: Files) -> Iterator[str]:
    """The files that the run wrote, for people."""
    for name in ("table", "export", "report"):
        if path := getattr(files, name):
            yield printable(f"{name:6} {path}")


def _rows(manifest: Path, defaults: Defaults) -> "tuple[Sequence[Row], Sequence[tuple[Path, str]]]":
    """The rows of a manifest or a directory, and what of that may not be looked into, of which a line is printed."""
    from converter.fleet.manifest import discovered, read_manifest

    rows, closed = (
        discovered(manifest, defaults) if is_directory(manifest) else (tuple(read_manifest(manifest, defaults)), ())
    )
    for directory, why in closed:
        click.echo(printable(f"{COMMAND}: {directory}: can't be read: {why}"), err=True)
    if not rows and not closed:
        raise ConverterError(f"{manifest}: holds no adapter", status=NOTHING_LOOKED_AT)
    return rows, closed


def _place(push: "Path | Address | None") -> "Path | HubAddress | None":
    from converter.read.hub_address import HubAddress

    if push is not None and not isinstance(push, Path | HubAddress):
        raise ConverterError(f"--push {push}: wanted a directory, or hf://ORG/NAME")
    return push.absolute() if isinstance(push, Path) else push


def _need_extras(rows: "Sequence[Row]") -> None:
    if any(row.verify for row in rows):
        need_extra("verify", *_VERIFY_EXTRA)
    if any(row.push and not isinstance(row.push, Path) for row in rows):
        need_extra("hub", *_HUB_EXTRA)


def _steps(manifest: Path, output: Path | None, prompts: Path | None) -> "Steps":
    from converter.fleet.rows import Steps

    outputs = output or manifest.parent
    return Steps(prompts and prompts.absolute(), outputs.absolute())


@contextmanager
def _opened(path: Path, rows: "Sequence[Row]", steps: "Steps") -> "Iterator[Table]":
    """The table, once the rows can be done together."""
    from converter.fleet.run import check_rows
    from converter.fleet.table import opened

    check_rows(rows, steps)
    with opened(path) as table:
        yield table


def _run(rows: "Sequence[Row]", steps: "Steps", table: "Table", cluster: "Cluster") -> "Result":
    from converter.cli.fleet_progress import watching
    from converter.fleet.hub_push import with_pushes
    from converter.fleet.on_ray import ray_workers
    from converter.fleet.run import run

    with watching(len(rows)) as watch:
        return run(rows, steps, table, with_pushes(partial(ray_workers, cluster), rows), watch)


if __name__ == "__main__":
    main()
