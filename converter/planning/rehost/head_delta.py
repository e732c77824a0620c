"""How a planned head differs from the planned embedding: by a product of few columns and rows, or by more."""

from math import prod

from converter.planning.conversion_plan import PlannedFile
from converter.planning.rehost.layout import matrix_of
from converter.sources import Delta, Merged, Rows, StoredColumns, StoredRows, shape_of


def head_delta(file: PlannedFile) -> tuple[Delta, ...] | None:
    """The deltas whose sum is head - embedding, or None where that is more than the adapter's factors.

    Both ends of one base may have a LoRA: the head's counts, and the embedding's counts negatively. A base layer saved
    beside a LoRA is the base's, if its numbers are those within the rounding of both.
    """
    tensors = {tensor.name: tensor for tensor in file.tensors}
    head, embedding = (_parts(matrix_of(tensors[f"{end}.weight"])) for end in ("output", "token_embd"))
    if head is None or embedding is None or not _are_same(head[0], embedding[0]):
        return None
    added = (*head[1], *(delta._replace(scaling=-delta.scaling) for delta in embedding[1]))
    return added if all(delta.right for delta in added) else None


def rank_of(deltas: tuple[Delta, ...]) -> int:
    """How many columns and rows the deltas have together."""
    return sum(shape_of(delta.right)[0] for delta in deltas if delta.right)


def _parts(matrix: Merged | Rows) -> tuple[Rows, tuple[Delta, ...]] | None:
    match matrix:
        case Merged(base, deltas, None, ()):
            return base, deltas
        case Merged():
            return None  # a magnitude or rows of tokens: no product of factors
        case rows:
            return rows, ()


def _are_same(head: Rows, embedding: Rows) -> bool:
    """Whether two sources hold the same numbers, as far as what they are stored as can tell."""
    from converter.values.numbers import relative_difference, rounding

    match head, embedding:
        case ((StoredRows() | StoredColumns()), (StoredRows() | StoredColumns())):
            ours, theirs = head.tensor, embedding.tensor
        case _:  # a pair of anything else: nothing that lies in a file to compare
            return False
    if ours == theirs:
        return True
    if ours.shape != theirs.shape or not prod(ours.shape):
        return False
    return relative_difference(ours, theirs) <= rounding(ours) + rounding(theirs)
