"""The adapter that is planned: the one at PATH, or its equal that PEFT itself makes of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converter.diagnostics import Deployment
from converter.errors import ConverterError
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel
from converter.read.peft_methods import peft_method


@contextmanager
def convertible(adapter: Adapter, base: BaseModel, deployment: Deployment, scratch: Path) -> Iterator[Adapter]:
    """What the plan can convert. A method that PEFT itself has to merge is judged first, and merged below ``scratch``.

    Raises Refused where a rule forbids the deployment, ConverterError where PEFT is missing or can't do it.
    """
    method = peft_method(adapter.config.peft_type) if adapter.config else None
    if method is None or not method.needs_peft:
        yield adapter
        return
    from converter.convert import judge

    judge(adapter, base, deployment)
    try:
        from converter.through_peft.equivalent import equivalent_adapter
    except ImportError as error:
        raise ConverterError(
            f"{adapter.path}: is of type {method.name}, which PEFT itself merges, and {error.name} is not installed; "
            "run pip install 'adapter-to-gguf[train]'"
        ) from error
    with equivalent_adapter(adapter, base, scratch) as equal:
        yield equal
