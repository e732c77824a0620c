"""What to do, done: where a rule names a command or a change of a file, the fault is gone behind it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from converter.diagnostics import OPTIONS, Deployment, Kind
from converter.report.documentation import documentation, rule_named
from tests.rules.bad import BAD, Spoil
from tests.rules.specimens import Specimen, codes

COMMAND = re.compile(r"`adapter-to-gguf ADAPTER --base BASE (.*?) -o")
KINDS: dict[str, Kind] = {OPTIONS[kind]: kind for kind in get_args(Kind)} | {"--untie": "untie-model"}


def commanded(code: str) -> Kind | None:
    """The deployment that a rule's remedy is a command for."""
    rule = rule_named(code)
    found = COMMAND.search(documentation(rule).what_to_do) if rule else None
    return KINDS[found[1]] if found else None


# CF005 has one for some methods alone, and its bad adapter is of another.
BY_COMMAND = [(expected[0], spoil) for expected, spoil in BAD if expected[0] != "CF005" and commanded(expected[0])]


def test_many_rules_have_a_command() -> None:
    assert len({code for code, _ in BY_COMMAND}) > 15


@pytest.mark.parametrize(("code", "spoil"), BY_COMMAND, ids=[f"{code}-{spoil.__name__}" for code, spoil in BY_COMMAND])
def test_the_command_does_it(code: str, spoil: Spoil, specimen: Specimen, bases: Path) -> None:
    spoil(specimen, bases)
    kind = commanded(code)
    assert kind
    report = specimen.report(Deployment.of(kind))
    assert code in codes(report)
    assert code not in report.blockers(kind)


def _delete(*names: str) -> Callable[[Specimen], object]:
    def mend(it: Specimen) -> None:
        for name in names:
            (it.directory / name).unlink(missing_ok=True)

    return mend


def _set(**fields: object) -> Callable[[Specimen], object]:
    def mend(it: Specimen) -> None:
        config = json.loads(it.config_path.read_bytes()) | fields
        it.config_path.write_text(json.dumps(config), encoding="utf-8")

    return mend


def _saved_again(it: Specimen) -> None:
    """By PEFT's save_pretrained: the good adapter in place of the spoilt one."""
    for path in it.directory.iterdir():
        if path.is_file() or path.is_symlink():
            path.unlink()
    Specimen(it.directory, it.base).write()


CHANGES: dict[str, Callable[[Specimen], object]] = {
    **dict.fromkeys(("ST001", "ST002", "ST003", "ST004", "ST005", "ST006", "ST007", "ST008", "ST009"), _saved_again),
    **dict.fromkeys(("ST010", "ST011", "CF001", "CF002", "CF008", "LO001", "LO002", "LO003", "SC001"), _saved_again),
    "ST012": _delete("trainable_params.bin", "non_lora_trainables.bin", "new_embeddings.safetensors"),
    "ST020": _delete("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    "SC004": _delete("training_args.bin", "optimizer.pt", "scheduler.pt"),
    "SC006": _delete("README.md"),
    "SC007": _delete("chat_template.jinja"),
    "BM007": _delete("base_fingerprint.json"),
}
BY_CHANGE = [(expected[0], spoil) for expected, spoil in BAD if expected[0] in CHANGES and len(expected) == 1]


@pytest.mark.parametrize(("code", "spoil"), BY_CHANGE, ids=[f"{code}-{spoil.__name__}" for code, spoil in BY_CHANGE])
def test_the_change_does_it(code: str, spoil: Spoil, specimen: Specimen, bases: Path) -> None:
    spoil(specimen, bases)
    before = codes(specimen.report())
    CHANGES[code](specimen)
    assert (code in before, code in codes(specimen.report())) == (True, False)
