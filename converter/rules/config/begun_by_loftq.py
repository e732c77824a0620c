"""The adapter was begun by LoftQ, which gives it a base of its own: the quantised one.

Why it matters: LoftQ lets the first factors make up for what quantising took from the base. PEFT's own guide saves that
quantised base, and writes init_lora_weights: true into the adapter's config. On the original base it is off by what the
first factors hold: 0.47 of the adapter's effect on a tiny model. Neither shapes nor norms tell the two bases apart.

What to do: give the base that LoftQ saved (base_model_name_or_path names it), or a GGUF of that.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.config_fields import holds_nothing
from converter.derive.model_names import cached_repository, without_cache
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield LoftQ's settings, unless the base is the one that the adapter names."""
    config = adapter.config
    if config is None or not config.is_lora or holds_nothing(config.raw.get("loftq_config")):
        return
    named = without_cache(config.base_model_name_or_path or "")
    if not named or named not in (str(base.path), base.name, cached_repository(base.path)):
        message = f"is set: the adapter belongs to the base that LoftQ saved, and {base.label} may be the original"
        yield Problem("loftq_config", message)


RULE = Rule("CF016", "begun-by-loftq", Severity.WARNING, BaseCheck(check))
