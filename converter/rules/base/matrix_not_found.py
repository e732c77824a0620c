"""What the adapter changes isn't found in the GGUF, or not in one place alone, by comparing it with --checkpoint.

Why it matters: of an architecture without a table nothing else says where a delta goes, and in which order of rows. The
numbers have to: of a float type the same once they are rounded, of a quantised one within its blocks' steps, each row
once. Another checkpoint, weights that were tuned, rotated or scaled on the way, and matrices that are alike in every
layer can't be told so.

What to do: give the very checkpoint that the GGUF was made from, or a GGUF that llama.cpp's convert_hf_to_gguf.py makes
of it (--outtype f32, f16 or bf16 tells more than a quantised one). Leave the module out of the adapter
(target_modules) where it can't be found.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, CannotLookError, Problem, Rule, Severity


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each module that was looked for and not found."""
    if base.checkpoint and not base.match:
        raise CannotLookError("the base was not compared with its checkpoint, which --to model does")
    for module, why in base.match.missing.items() if base.match else ():
        yield Problem(module, why)


RULE = Rule("BM050", "matrix-not-found", Severity.ERROR, BaseCheck(check), gguf=True)
