"""The adapter changes the vision or audio part of a multimodal model too.

Why it matters: llama.cpp serves that part from a file of its own (mmproj), and loads no LoRA on it.
convert_lora_to_gguf.py drops its tensors in silence: the text model is then served with a vision tower that it was not
trained beside.

What to do: train the language model alone (exclude_modules, or a target_modules regex that names it); or merge with
PEFT (merge_and_unload) and convert the merged model and its mmproj with convert_hf_to_gguf.py. Where no picture or
sound is to be looked at, `--text-only` leaves these tensors of a LoRA out, each a line of the ledger: of a prompt that
is text alone the text part computes what PEFT computes.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.module_paths import tower_of
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the parts of the model that are not its text model, each with how many modules it has here."""
    way = "; --text-only leaves them out" if adapter.config and adapter.config.is_lora else ""
    counts: dict[str, int] = {}
    for module in adapter.modules:
        tower = tower_of(module)
        if tower:
            counts[tower] = counts.get(tower, 0) + 1
    for tower, count in counts.items():
        yield Problem(tower, f"has tensors for {count} modules, which no GGUF of the text model holds{way}")


RULE = Rule("LO020", "vision-tower-changed", Severity.ERROR, AdapterCheck(check), gguf=True)
