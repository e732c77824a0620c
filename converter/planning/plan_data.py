"""A plan as plain data for JSON: names, shapes, keys and numbers; no paths."""

import json
from hashlib import sha256

from converter.planning.conversion_plan import (
    ConversionPlan,
    CopiedKeyValue,
    EditedArray,
    NewArray,
    NewKeyValue,
    NewScalar,
    PlannedFile,
    PlannedKeyValue,
    PlannedTensor,
    StoredNumbers,
)
from converter.sources import (
    CopiedBytes,
    Delta,
    Filled,
    Given,
    JoinedColumns,
    JoinedRows,
    Merged,
    NegativeExp,
    Piece,
    Placed,
    Product,
    Rows,
    Scaled,
    Source,
    Stacked,
    StoredColumns,
    StoredRows,
    WideEmbedding,
    Zeros,
)


def plan_digest(plan: ConversionPlan) -> str:
    """SHA-256 of a plan as canonical JSON."""
    return sha256(json.dumps(plan_data(plan), sort_keys=True).encode()).hexdigest()


def plan_data(plan: ConversionPlan) -> dict[str, object]:
    """The plan for JSON: no paths, so that it is the same on every machine."""
    return {
        "deployment": plan.deployment.options,
        "architecture": plan.architecture,
        "files": [_file_data(file) for file in plan.files],
        "ledger": [{"kind": x.kind, "key": x.key, "fate": x.fate, "how": x.how} for x in plan.ledger],
        "notes": list(plan.notes),
        **({"matches": [match._asdict() for match in plan.matches]} if plan.matches else {}),
    }


def _file_data(file: PlannedFile) -> dict[str, object]:
    return {
        "name": file.name,
        "nbytes": file.nbytes,
        "alignment": file.alignment,
        "key_values": [_key_value_data(entry) for entry in file.key_values],
        "tensors": [_tensor_data(tensor) for tensor in file.tensors],
    }


def _tensor_data(tensor: PlannedTensor) -> dict[str, object]:
    data: dict[str, object] = {"name": tensor.name, "shape": list(tensor.shape), "type": tensor.type.name}
    if tensor.quantised:
        data["quantised"] = "by the imatrix" if tensor.quantised.importance else "without an imatrix"
    return {**data, "source": _source_data(tensor.source)}


def _key_value_data(entry: PlannedKeyValue) -> dict[str, object]:
    match entry:
        case CopiedKeyValue():
            return {"copy": entry.key}
        case EditedArray(_, key, _, n, changes):
            return {"edit": key, "n": n, "changes": [list(change) for change in changes]}
        case NewKeyValue(key, value) | NewScalar(key, _, value):
            return {"key": key, "value": value}
        case StoredNumbers(key, keys):
            return {"key": key, "numbers": list(keys)}
        case NewArray(key, _, values):
            return {"key": key, "n": len(values), "sha256": sha256(json.dumps(values).encode()).hexdigest()}


def _source_data(source: Source) -> dict[str, object]:
    match source:
        case CopiedBytes(key):
            return {"copy": key}
        case Merged():
            return _merged_data(source)
        case Stacked(parts):
            return {"experts": [_source_data(part) for part in parts]}
        case Placed(shape, pieces):
            return {"placed": list(shape), "pieces": [_piece_data(piece) for piece in pieces]}
        case WideEmbedding():
            return _wide_data(source)
        case rows:
            return _rows_data(rows)


def _merged_data(source: Merged) -> dict[str, object]:
    data: dict[str, object] = {"merge": _source_data(source.base)}
    if source.deltas:
        data["deltas"] = [_delta_data(delta) for delta in source.deltas]
    if source.magnitude:
        data["magnitudes"] = {"of": source.magnitude.of, **_rows_data(source.magnitude.values)}
    if source.replaced:
        data["replaced"] = [{"indices": list(r.indices), **_rows_data(r.rows)} for r in source.replaced]
    return data


def _piece_data(piece: Piece) -> dict[str, object]:
    data: dict[str, object] = {"at": list(piece.at), "rows": list(piece.rows), "columns": list(piece.columns)}
    if piece.factor != 1.0:
        data["factor"] = piece.factor
    match piece.matrix:
        case Product(left, columns, matrix):
            factors: list[Merged | Rows | None] = [left, columns, matrix]
            return {**data, "product": [_source_data(factor) for factor in factors if factor]}
        case matrix:
            return {**data, "of": _source_data(matrix)}


def _wide_data(source: WideEmbedding) -> dict[str, object]:
    return {
        "wide": _source_data(source.embedding),
        "head": [_delta_data(delta) for delta in source.head],
        "mixing": _rows_data(source.mixing),
        "factor": source.factor,
        "constant": source.constant,
        "norm2": source.norm2,
    }


def _delta_data(delta: Delta) -> dict[str, object]:
    right = {"right": _rows_data(delta.right)} if delta.right else {}
    return {"left": _rows_data(delta.left), **right, "scaling": delta.scaling}


def _rows_data(rows: Rows) -> dict[str, object]:
    match rows:
        case Zeros(shape):
            return {"zeros": list(shape)}
        case Filled(shape, value):
            return {"filled": list(shape), "value": value}
        case Given(shape, data):
            return {"given": list(shape), "sha256": sha256(data).hexdigest()}
        case StoredColumns(key):
            return {"columns": key}
        case JoinedRows(parts) | JoinedColumns(parts):
            where = "below" if isinstance(rows, JoinedRows) else "beside"
            return {where: [_rows_data(part) for part in parts]}
        case StoredRows() | NegativeExp(StoredRows()) | Scaled(StoredRows()):
            return _stored_data(rows)


def _stored_data(rows: StoredRows | NegativeExp | Scaled) -> dict[str, object]:
    if isinstance(rows, Scaled):
        return {"scaled": _stored_data(rows.of), "factors": list(rows.factors)}
    if isinstance(rows, NegativeExp):
        return {"negative_exp": _stored_data(rows.of)}
    facts = {
        "order": rows.order.text or None,
        "scale": rows.scale if rows.scale != 1.0 else None,
        "add": rows.add or None,
        "columns": rows.columns.text or None,
    }
    return {"rows": rows.key} | {name: fact for name, fact in facts.items() if fact is not None}
