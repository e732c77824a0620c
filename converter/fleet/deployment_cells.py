"""What a row's cells say of its deployment: its kind, its types, and how it is quantised."""

from dataclasses import replace
from typing import Final, cast, get_args

from converter.diagnostics import HOSTS, Deployment, Kind, Quantize
from converter.fleet.cells import Cells
from converter.planning.file_types import FILE_TYPES, TYPES, tensor_type
from converter.planning.outtypes import OUTTYPES
from converter.planning.shards import split_size

COLUMNS: Final = ("deployment", "outtype", "host", "split_max_size", "quantize")
QUANTIZE_COLUMNS: Final = (
    "imatrix", "tensor_type", "output_tensor_type", "token_embedding_type", "allow_requantize", "least_kept",
)  # fmt: skip
_SWITCH: Final = "allow_requantize"
_KINDS: Final = get_args(Kind)


def deployment_of(cells: Cells, default: Deployment) -> Deployment:
    """The deployment of a row; ``default`` stands for what is empty. Raises ConverterError naming the column."""
    kind = cells.one_of("deployment", _KINDS)
    of = Deployment.of(cast("Kind", kind)) if kind else default
    if cells.text("quantize") and not kind:
        of = replace(of, to="model")
    outtype, host = cells.one_of("outtype", OUTTYPES), cells.one_of("host", HOSTS)
    if host and not of.untie:
        raise cells.wrong("host", "none: it is for a head apart from the embedding (untie-lora, untie-model)")
    own_host = default.host if of.untie else None
    quantize = _quantize(cells, of) or (default.quantize if of.to == "model" else None)
    return Deployment(of.to, of.untie, outtype or default.outtype, host or own_host, quantize)


def split_of(cells: Cells, deployment: Deployment) -> int | None:
    """The largest file of a row, in bytes. Raises ConverterError."""
    text = cells.text("split_max_size")
    if text is None:
        return None
    if deployment.to != "model":
        raise cells.wrong("split_max_size", "none: only a merged model (model, untie-model) is split")
    nbytes = split_size(text)
    if nbytes is None:
        raise cells.wrong("split_max_size", "a size such as 500M or 4G")
    return nbytes


def _quantize(cells: Cells, of: Deployment) -> Quantize | None:
    named = cells.text("quantize")
    if named is None:
        for column in QUANTIZE_COLUMNS:
            if cells.given(column) and (column != _SWITCH or cells.switch(column)):
                raise cells.wrong(column, "none: it is for a row that says quantize")
        return None
    if named.upper() not in FILE_TYPES:
        raise cells.wrong("quantize", f"one of {', '.join(FILE_TYPES)}")
    if of.to != "model":
        raise cells.wrong("quantize", "none: only a merged model (model, untie-model) is quantised")
    least_kept = _share(cells, "least_kept")
    quantize = Quantize(
        named.upper(), cells.path("imatrix"), _tensor_types(cells), _type(cells, "output_tensor_type"),
        _type(cells, "token_embedding_type"), cells.switch(_SWITCH),
    )  # fmt: skip
    return quantize if least_kept is None else quantize._replace(least_kept=least_kept)


def _tensor_types(cells: Cells) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(map(tensor_type, (cells.text("tensor_type") or "").split()))
    except ValueError as error:
        raise cells.wrong("tensor_type", f"PATTERN=TYPE, and spaces between several: {error}") from error


def _type(cells: Cells, column: str) -> str | None:
    name = cells.text(column)
    if name is not None and name.upper() not in TYPES:
        raise cells.wrong(column, f"one of {', '.join(TYPES)}")
    return name and name.upper()


def _share(cells: Cells, column: str) -> float | None:
    text = cells.text(column)
    if text is None:
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise cells.wrong(column, "a number from 0 to 1")
    return share
