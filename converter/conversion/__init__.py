"""Adapter to GGUF: judged, planned, written. Whoever comes by this door, with a command or a call, gets all of it."""

from converter.conversion.planned import judge, needs_weights, plan
from converter.conversion.refused import Refused
from converter.conversion.written import KEPT_CODE, Written, is_untied_base_of, write, written_already

__all__ = [
    "KEPT_CODE", "Refused", "Written", "is_untied_base_of", "judge", "needs_weights", "plan", "write",
    "written_already",
]  # fmt: skip
