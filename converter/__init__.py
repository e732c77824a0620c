"""What happens between "the LoRA is trained" and "it is served": check, convert and prove PEFT adapters.

docs/library.md tells how to use it. Names are imported when they are first asked for, so that ``adapter-check`` starts
without numpy and torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from converter.version import __version__ as __version__

if TYPE_CHECKING:
    from converter.conversion import Refused, Written
    from converter.derive.adapter import Adapter
    from converter.derive.base_model import BaseModel
    from converter.diagnostics import Deployment, Finding, Report
    from converter.errors import ConverterError
    from converter.library import check, convert, plan, read_adapter, read_base, train, verify, write
    from converter.planning.conversion_plan import ConversionPlan
    from converter.training.settings import TrainingSettings
    from converter.verification.verification import DeployedLora, DeployedModel, Verification

__all__ = [
    "Adapter",
    "BaseModel",
    "ConversionPlan",
    "ConverterError",
    "DeployedLora",
    "DeployedModel",
    "Deployment",
    "Finding",
    "Refused",
    "Report",
    "TrainingSettings",
    "Verification",
    "Written",
    "check",
    "convert",
    "plan",
    "read_adapter",
    "read_base",
    "train",
    "verify",
    "write",
]

_MODULES: Final = {
    "Adapter": "converter.derive.adapter",
    "BaseModel": "converter.derive.base_model",
    "ConversionPlan": "converter.planning.conversion_plan",
    "ConverterError": "converter.errors",
    "DeployedLora": "converter.verification.verification",
    "DeployedModel": "converter.verification.verification",
    "Deployment": "converter.diagnostics",
    "Finding": "converter.diagnostics",
    "Refused": "converter.conversion",
    "Report": "converter.diagnostics",
    "TrainingSettings": "converter.training.settings",
    "Verification": "converter.verification.verification",
    "Written": "converter.conversion",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, "converter.library")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
