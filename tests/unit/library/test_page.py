"""docs/library.md: every example runs, one after the other, as a reader would run them."""

import re
from pathlib import Path

import pytest

from tests.rules.specimens import Specimen, head_lora
from tests.unit.conversion import write_base

PAGE = Path(__file__).parents[3] / "docs" / "library.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SLOW = ("converter.verify(", "converter.train(")  # run in tests/e2e/test_library_page.py


def examples() -> list[str]:
    return EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    plain = Specimen(Path("my-adapter"), write_base(Path("base.gguf")))
    plain.write()
    with_head = Specimen(Path("head-adapter"), Path("base.gguf"))
    with_head.tensors |= head_lora()
    with_head.write()
    names: dict[str, object] = {}
    for example in examples():
        if not any(call in example for call in SLOW):
            exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102  our own page
    assert Path("lora.gguf").stat().st_size
    assert Path("model.gguf").stat().st_size
    assert not Path("refused.gguf").exists()
    assert "HD001" in capsys.readouterr().out
