"""Nothing that a base or an adapter brings is run: no Python, no pickle, no package that a file names.

Whatever is asked on stdin is answered with yes. What would be run leaves a mark.
"""

import ast
import inspect
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import transformers
from click.testing import CliRunner, Result
from trl.trainer.sft_config import SFTConfig

import converter
from converter.cli import check, to_gguf, train, verify
from converter.derive.adapter import read_adapter
from converter.errors import COULD_NOT, FINE
from converter.transformers_base import load_base
from converter.verification.reference import Reference
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel
from fixtures.trainable import chats, trainable

BASE = TinyModel("llama")
SHORT = ("--max-steps", "2", "--warmup-ratio", "0", "--r", "4", "--learning-rate", "0.02")
# Each way in which a base names Python of its own, and the classes that it says are there.
AUTO_MAPS = {
    "config": {"AutoConfig": "evil.Config"},
    "model": {"AutoModelForCausalLM": "evil.Model"},
    "config and model": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    "tokenizer": {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]},
}
EVIL = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = "evil"
class Model(LlamaForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
def generate(*_, **__): ...
"""


@pytest.fixture(autouse=True)
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there once foreign code was run. transformers' copies of it are the test's own."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mark"


@pytest.fixture(params=[*AUTO_MAPS, "generate"])
def evil(request: pytest.FixtureRequest, mark: Path, tmp_path: Path) -> Path:
    """A base whose Python leaves the mark."""
    return evil_base(request.param, mark, tmp_path / "evil")


def evil_base(kind: str, mark: Path, directory: Path) -> Path:
    shutil.copytree(trainable(BASE), directory)
    code = EVIL.format(mark=str(mark))
    (directory / "evil.py").write_text(code, encoding="utf-8")
    if kind == "generate":
        (directory / "custom_generate").mkdir()
        (directory / "custom_generate" / "generate.py").write_text(code, encoding="utf-8")
    elif kind == "tokenizer":
        edit(directory / "tokenizer_config.json", auto_map=AUTO_MAPS[kind], tokenizer_class="Tokenizer")
    else:
        edit(directory / "config.json", auto_map=AUTO_MAPS[kind])
        if "config" in kind:
            edit(directory / "config.json", model_type="evil")
    return directory


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def yes(main: Any, *arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input="y\n" * 1000)


def trained(base: Path) -> Result:
    """A run of adapter-train on this base."""
    Path("data.jsonl").write_text(chats(), encoding="utf-8")
    Path("general.txt").write_text("The river rises in the hills.", encoding="utf-8")
    paths = ("--data", "data.jsonl", "--output", "out", "--general-text", "general.txt")
    return yes(train.main, "--base", base, *paths, *SHORT)


def is_clear(result: Result) -> bool:
    """Whether the command ended fine, or said why it did not."""
    has_ended = result.exception is None or isinstance(result.exception, SystemExit)
    return has_ended and result.exit_code in (0, 1, 2) and bool(result.output.strip())


# --- A base's own Python ----------------------------------------------------------------------------------------------


def test_check_and_conversion_run_nothing(evil: Path, mark: Path) -> None:
    adapter = tiny_adapter("plain", BASE)
    for main in (check.main, to_gguf.main):
        assert is_clear(yes(main, adapter, "--base", evil))
    assert not mark.exists()


def test_training_runs_nothing(evil: Path, mark: Path, request: pytest.FixtureRequest) -> None:
    result = trained(evil)
    assert is_clear(result)
    assert not mark.exists()
    if "tokenizer" in request.node.name:
        assert result.exit_code == COULD_NOT
        assert "never run" in result.stderr


def test_the_reference_of_a_proof_runs_nothing(evil: Path, mark: Path, request: pytest.FixtureRequest) -> None:
    if "config" in request.node.name:
        with pytest.raises(converter.errors.ConverterError, match="never run"):
            Reference(evil, read_adapter(tiny_adapter("plain", BASE)))
    else:
        Reference(evil, read_adapter(tiny_adapter("plain", BASE)))
    assert not mark.exists()


@pytest.mark.llama
def test_verify_runs_nothing(evil: Path, mark: Path) -> None:
    options = ("--base", evil, "--model", BASE.gguf, "--base-gguf", BASE.gguf)
    assert is_clear(yes(verify.main, tiny_adapter("plain", BASE), *options))
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["config and model", "tokenizer"])
def test_the_mark_is_seen_where_code_is_trusted(
    kind: str, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for auto in (transformers.AutoConfig, transformers.AutoModelForCausalLM, transformers.AutoTokenizer):
        monkeypatch.setattr(auto, "from_pretrained", _trusting(auto.from_pretrained))
    trained(evil_base(kind, mark, tmp_path / "evil"))
    assert mark.exists()


def _trusting(loads: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **options: loads(*arguments, **{**options, "trust_remote_code": True})


def test_no_kernel_is_fetched_that_a_config_names(tmp_path: Path) -> None:
    shutil.copytree(trainable(BASE), tmp_path / "base")
    edit(tmp_path / "base" / "config.json", attn_implementation="evil/kernel")
    config: Any = load_base(tmp_path / "base", attn_implementation=None).config
    assert config._attn_implementation == "sdpa"  # noqa: SLF001  what it was loaded with
    assert trained(tmp_path / "base").exit_code == FINE


# --- Pickles ----------------------------------------------------------------------------------------------------------


class Payload:
    """Leaves the mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


def _only_pickle(directory: Path) -> str:
    (directory / "model.safetensors").unlink()
    return "pytorch_model.bin"


def _named_in_config(directory: Path) -> str:
    edit(directory / "config.json", transformers_weights="adapter_model.bin")
    return "adapter_model.bin"


def _named_in_index(directory: Path) -> str:
    (directory / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "pytorch_model.bin"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return "pytorch_model.bin"


@pytest.mark.parametrize("spoil", [_only_pickle, _named_in_config, _named_in_index])
def test_a_base_in_a_pickle_is_refused(spoil: Callable[[Path], str], mark: Path, tmp_path: Path) -> None:
    shutil.copytree(trainable(BASE), tmp_path / "base")
    name = spoil(tmp_path / "base")
    (tmp_path / "base" / name).write_bytes(pickle.dumps(Payload(mark)))
    result = trained(tmp_path / "base")
    assert (result.exit_code, result.stderr.count("\n")) == (COULD_NOT, 1)
    assert name in result.stderr
    with pytest.raises(converter.errors.ConverterError, match=name):
        Reference(tmp_path / "base", read_adapter(tiny_adapter("plain", BASE)))
    assert not mark.exists()
    pickle.loads((tmp_path / "base" / name).read_bytes())  # noqa: S301  the control: it would have left it
    assert mark.exists()


def test_an_adapter_beside_the_base_is_not_part_of_it(mark: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(trainable(BASE), base)
    shutil.copy(tiny_adapter("plain", BASE) / "adapter_config.json", base)
    (base / "adapter_model.bin").write_bytes(pickle.dumps(Payload(mark)))
    assert not hasattr(load_base(base), "peft_config")
    assert not mark.exists()


def test_an_adapter_in_a_pickle_is_refused(mark: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_adapter("plain", BASE), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps(Payload(mark)))
    result = yes(verify.main, tmp_path / "adapter", "--base", BASE.hf, "--model", BASE.gguf)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "pickle" in result.stderr
    assert not mark.exists()


# --- Packages that an adapter names -----------------------------------------------------------------------------------


def test_no_package_is_imported_that_an_adapter_names(
    mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_package.py").write_text(EVIL.format(mark=str(mark)), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(tiny_adapter("plain", BASE), tmp_path / "adapter")
    named = {"base_model_class": "Model", "parent_library": "evil_package"}
    edit(
        tmp_path / "adapter" / "adapter_config.json",
        auto_mapping=named,
        megatron_core="evil_package",
        megatron_config={"x": 1},
        task_type=None,
    )
    Reference(BASE.hf, read_adapter(tmp_path / "adapter"))
    assert not mark.exists()
    import evil_package  # type: ignore[import-not-found]  # noqa: F401  the control

    assert mark.exists()


# --- Every call -------------------------------------------------------------------------------------------------------

LOADS = {"from_pretrained", "from_config"}
# They have no such argument, and run nothing: pinned by the next test.
WITHOUT = {"PeftConfig"}


def calls_that_load() -> list[tuple[str, ast.Call]]:
    found = []
    for path in sorted(Path(converter.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        found += [(f"{path.name}:{call.lineno}", call) for call in calls if _loads(call)]
    return found


def _loads(node: ast.Call) -> bool:
    match node.func:
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return name in LOADS and owner not in WITHOUT
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name in {*LOADS, "SFTConfig"}
    return False


def test_every_call_that_loads_says_that_it_trusts_no_code() -> None:
    calls = calls_that_load()
    assert len(calls) >= 5
    for where, call in calls:
        said = {keyword.arg: keyword.value for keyword in call.keywords}
        assert isinstance(said.get("trust_remote_code"), ast.Constant), where
        assert said["trust_remote_code"].value is False, where  # type: ignore[attr-defined]  # a Constant


def test_who_takes_the_argument() -> None:
    assert "trust_remote_code" not in inspect.getsource(peft.PeftConfig.from_pretrained)
    assert "trust_remote_code" in inspect.signature(SFTConfig).parameters
