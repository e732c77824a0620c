"""What the library writes is what the command writes, byte for byte, for all that is more than a plain LoRA."""

from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner

from converter import Deployment, Refused, convert, plan, read_adapter, read_base, write
from converter.cli.to_gguf import main
from fixtures.variation import BASES, save_variation
from fixtures.variations import VARIATIONS

To = Literal["lora", "model"]
CASES: tuple[tuple[str, str, To, bool], ...] = (
    ("pissa, as trained", "llama", "model", False),
    ("pissa, as trained", "llama", "lora", False),
    ("pissa, with its initial adapter", "qwen2", "lora", False),
    ("olora, as trained", "qwen3", "model", False),
    ("olora, with its initial adapter", "llama", "model", False),
    ("IA3", "llama", "model", False),
    ("LoHa", "qwen2", "model", False),
    ("8 new tokens by modules_to_save", "gemma3", "model", True),
    ("8 new tokens by trainable_token_indices", "llama", "model", False),
    ("LoRA on lm_head", "gemma", "model", True),
    ("LoRA on lm_head", "gemma2", "model", True),
    ("LoRA on lm_head", "gemma2", "lora", True),
    ("fused experts, both parameters", "qwen3moe", "lora", False),
    ("fused experts, both parameters", "qwen3moe", "model", False),
    ("use_dora", "llama", "model", False),
)


@pytest.mark.parametrize(("name", "column", "to", "untie"), CASES)
def test_the_bytes_are_the_same(name: str, column: str, to: To, untie: bool, tmp_path: Path) -> None:
    variation = next(variation for variation in VARIATIONS if variation.name == name)
    adapter = tmp_path / "adapter"
    truth = save_variation(variation, BASES[column], adapter)
    by_command, by_library = tmp_path / "command", tmp_path / "library"
    options = ["--base", str(truth.gguf), "--to", to, *(["--untie"] if untie else []), "-o", str(by_command)]
    initial = ["--initial-adapter", str(truth.initial)] if truth.initial else []
    ran = CliRunner().invoke(main, [str(adapter), *options, *initial], catch_exceptions=False)
    assert ran.exit_code == 0, ran.stderr
    before = set(tmp_path.iterdir())
    read, base = read_adapter(adapter, initial=truth.initial), read_base(truth.gguf)
    with plan(read, base, Deployment(to, untie), scratch=tmp_path) as planned:
        written = write(planned, by_library)
    assert set(tmp_path.iterdir()) - before == {by_library}
    files = sorted(by_command.iterdir()) if by_command.is_dir() else [by_command]
    assert [file.path.read_bytes() for file in sorted(written, key=lambda file: file.path.name)] == [
        file.read_bytes() for file in files
    ]


def test_one_call_does_it_all(tmp_path: Path) -> None:
    variation = next(variation for variation in VARIATIONS if variation.name == "IA3")
    truth = save_variation(variation, BASES["llama"], tmp_path / "adapter")
    (written,) = convert(tmp_path / "adapter", tmp_path / "model.gguf", base=truth.gguf, deployment=Deployment("model"))
    assert written.path.stat().st_size == written.nbytes
    with pytest.raises(Refused, match="CF005"):
        convert(tmp_path / "adapter", tmp_path / "lora.gguf", base=truth.gguf)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "model.gguf"]


def test_what_the_command_undoes_is_undone(tmp_path: Path) -> None:
    """The control: the adapter as it lies there, without what its training took out of the base."""
    from dataclasses import replace

    from converter.planning.conversion import plan_conversion
    from converter.planning.ledger import LedgerGapError

    variation = next(variation for variation in VARIATIONS if variation.name == "pissa, as trained")
    truth = save_variation(variation, BASES["llama"], tmp_path / "adapter")
    adapter, base = read_adapter(tmp_path / "adapter"), read_base(truth.gguf)
    with pytest.raises(LedgerGapError, match="init_lora_weights is pissa, and nothing undoes it"):
        plan_conversion(adapter, base, Deployment("model"))
    with plan(adapter, base, Deployment("model")) as planned:
        assert planned.adapter.initial
        assert replace(planned.adapter, initial=None) == adapter
