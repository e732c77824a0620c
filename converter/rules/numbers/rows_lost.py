"""Half of the rows of every lora_B are zero, or more, one beside the other.

Why it matters: training leaves no row of zeros, and shards that were never gathered do: an adapter saved under FSDP
with one rank's part of each tensor, in a file whose shapes are all right. What is served is 1/N of what was learned.

What to do: save the adapter again from the training run or its checkpoint, with the parameters gathered (a full state
dict under FSDP, stage3_gather_16bit_weights_on_model_save under ZeRO-3).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter, LoraPair
from converter.diagnostics import Problem, Rule, Severity, ValuesCheck


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the first pair's rows if those of every pair that has a delta are lost; one without a delta says nothing.

    An embedding's factor begins at zero, and keeps it for tokens that no text had.
    """
    from converter.values.numbers import is_zero_delta, zero_rows

    first: tuple[LoraPair, tuple[int, int]] | None = None
    n_lost = 0
    for pair in adapter.pairs:
        if pair.is_embedding or not pair.is_well_shaped:
            continue
        n_rows = pair.b.tensor.shape[0]
        begin, end = zero_rows(pair.b.tensor)
        if 2 * (end - begin) >= n_rows > 1:
            n_lost += not is_zero_delta(pair)
            first = first or (pair, (begin, end))
        elif not is_zero_delta(pair):
            return
    if first and n_lost:
        pair, (begin, end) = first
        message = f"rows {begin} to {end - 1} of {pair.b.tensor.shape[0]} are zero, and so it is in all {n_lost} deltas"
        yield Problem(pair.b.key, message)


RULE = Rule("NM005", "rows-lost", Severity.ERROR, ValuesCheck(check))
