"""The base is a Hugging Face directory with a tensor that llama.cpp's graph of its architecture has no place for.

Why it matters: without it the model is another one, and nothing would say so: a bias on a projection, for example, that
transformers adds and llama.cpp doesn't.

What to do: give a GGUF of the base that is known to work, or serve the model with another program.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.checkpoint_parts import left_over
from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the first tensor that would be left over, and how many there are."""
    if not base.is_convertible_checkpoint or base.architecture is None:
        return
    names = tuple(left_over(base))
    if names:
        more = f", as {len(names) - 1} more" if len(names) > 1 else ""
        yield Problem(names[0], f"has no place in llama.cpp's {base.architecture.name}{more}", WHOLE_BASE)


RULE = Rule("BM041", "base-tensor-not-converted", Severity.ERROR, BaseCheck(check), gguf=True)
