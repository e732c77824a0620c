"""The adapter that is planned: the one at PATH, with what it began with; or its equal that PEFT itself makes of it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from converter.cli.initial_adapter import read_initial_adapter
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.config_fields import initialization
from converter.derive.peft_methods import peft_method
from converter.diagnostics import Deployment
from converter.errors import ConverterError


@contextmanager
def convertible(
    adapter: Adapter, base: BaseModel, deployment: Deployment, initial: Path | None, scratch: Path
) -> Iterator[Adapter]:
    """What the plan can convert. What PEFT has to compute for it is judged first, and lies below ``scratch``.

    Raises Refused where a rule forbids the deployment, ConverterError where PEFT is missing or can't do it.
    """
    from converter.conversion import judge

    if initial:
        first = read_initial_adapter(initial)
        judge(first, base, deployment)
        yield replace(adapter, initial=first)
    elif not _needs_peft(adapter):
        yield adapter
    else:
        judge(adapter, base, deployment)
        with _computed(adapter, base, scratch) as computed:
            yield computed


def _needs_peft(adapter: Adapter) -> bool:
    config = adapter.config
    method = peft_method(config.peft_type) if config else None
    return method.needs_peft if method else bool(initialization(config))


def _computed(adapter: Adapter, base: BaseModel, scratch: Path) -> AbstractContextManager[Adapter]:
    try:
        from converter.through_peft.equivalent import equivalent_adapter
        from converter.through_peft.initial import with_initial
    except ImportError as error:
        raise ConverterError(
            f"{adapter.path}: PEFT itself has to compute what it changes, and {error.name} is not installed; "
            "run pip install 'adapter-to-gguf[train]'"
        ) from error
    is_lora = adapter.config is None or adapter.config.is_lora
    return (with_initial if is_lora else equivalent_adapter)(adapter, base, scratch)
