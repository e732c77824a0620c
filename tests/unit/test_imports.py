"""adapter-check runs on click alone: each test looks at what a fresh interpreter has imported."""

import json
import struct
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
from click.testing import CliRunner

from converter.cli import to_gguf
from converter.errors import COULD_NOT
from fixtures.generated import write_gemma_2b_base, write_safetensors
from tests.rules.bad.wrong_bases import record
from tests.rules.specimens import FFN, UP, Specimen, tensor, write_gguf

HEAVY = {
    "botocore", "datasets", "gguf", "httpx2", "huggingface_hub", "libgguf", "ml_dtypes", "numpy", "obstore", "peft",
    "rich", "safetensors", "torch", "transformers",
}  # fmt: skip

# main() ends in SystemExit; what was imported goes to stderr's last line, after the command's own output.
PROBE = """
import json, sys
from converter.cli.{module} import main
sys.argv = json.loads(sys.argv[1])
try:
    main()
except SystemExit as exit:
    status = exit.code
print(json.dumps([status or 0, sorted({{name.split(".")[0] for name in sys.modules}})]), file=sys.stderr)
"""


def run_and_list_imports(module: str, *arguments: str) -> tuple[int, set[str]]:
    command = [sys.executable, "-c", PROBE.format(module=module), json.dumps([module, *arguments])]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    status, modules = json.loads(ran.stderr.splitlines()[-1])
    return status, set(modules)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    factor = struct.pack("<32f", *[0.5] * 32)
    tensors = {
        f"{module}.lora_A.weight": ("F32", (4, 8), factor),
        f"{module}.lora_B.weight": ("F32", (8, 4), factor),
    }
    write_safetensors(tmp_path / "adapter_model.safetensors", tensors, {"format": "pt"})
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("output", ["text", "json", "github"])
def test_judging_an_adapter_imports_nothing_heavy(adapter: Path, output: str) -> None:
    status, modules = run_and_list_imports("check", str(adapter), "--headers-only", "--format", output)
    assert status == 0
    assert "click" in modules
    assert not modules & HEAVY


def test_comparing_a_recorded_base_imports_nothing_heavy(tmp_path: Path) -> None:
    it = Specimen(tmp_path / "adapter", write_gguf(tmp_path / "base.gguf"))
    it.write()
    record(it, tmp_path / "base.gguf")
    status, modules = run_and_list_imports("check", str(it.directory), "--base", str(it.base), "--headers-only")
    assert status == 0
    assert not modules & HEAVY


# What only other adapters and bases need, or other options.
FOR_OTHERS = {
    "converter.derive.foreign_keys", "converter.derive.pre_tokenizers", "converter.derive.regex",
    "converter.derive.tokenizer_model", "converter.hub", "converter.read.bucket_address", "converter.read.gguf_header",
    "converter.read.hub_address", "converter.report.formats.github", "converter.report.formats.json",
    "converter.values", "hashlib", "traceback",
}  # fmt: skip
N_MODULES = 56
N_DATACLASSES = 7
PLAIN_CHECK = """
import dataclasses, json, sys
from converter.cli.check import main
sys.argv = json.loads(sys.argv[1])
try:
    main()
except SystemExit:
    pass
ours = {name: module for name, module in sys.modules.items() if name.startswith("converter")}
classes = {value for module in ours.values() for value in vars(module).values() if isinstance(value, type)}
print(json.dumps([sorted(sys.modules), sum(map(dataclasses.is_dataclass, classes))]), file=sys.stderr)
"""


def test_a_plain_check_defines_and_imports_no_more_than_it_needs(adapter: Path, tmp_path: Path) -> None:
    """Half of its time is the imports: a module takes 0.1 ms and more, a dataclass 0.7 ms, a NamedTuple 0.1 ms."""
    base = tmp_path / "base"
    base.mkdir()
    arguments = json.dumps(["check", str(adapter), "--headers-only", "--base", str(write_gemma_2b_base(base))])
    command = [sys.executable, "-c", PLAIN_CHECK, arguments]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    modules, n_dataclasses = json.loads(ran.stderr.splitlines()[-1])
    assert "converter.rules.base.module_not_in_base" in modules
    assert not FOR_OTHERS & {*modules}
    ours = [name for name in modules if name.startswith("converter") and not name.startswith("converter.rules.")]
    assert len(ours) <= N_MODULES, "import what is new where it is used, or raise the number"
    assert n_dataclasses <= N_DATACLASSES, "a NamedTuple will do, or raise the number"


@pytest.mark.parametrize("module", ["check", "to_gguf", "verify"])
def test_help_imports_nothing_heavy(module: str) -> None:
    status, modules = run_and_list_imports(module, "--help")
    assert status == 0
    assert not modules & HEAVY


TORCH = {"peft", "safetensors", "torch", "transformers"}


@pytest.mark.parametrize("to", ["lora", "model"])
def test_converting_a_lora_imports_no_torch(to: str, tmp_path: Path) -> None:
    it = Specimen(tmp_path / "adapter", write_gguf(tmp_path / "base.gguf"))
    it.write()
    output = str(tmp_path / "out.gguf")
    status, modules = run_and_list_imports(
        "to_gguf", str(it.directory), "--base", str(it.base), "--to", to, "-o", output
    )
    assert (status, Path(output).exists()) == (0, True)
    assert not modules & TORCH


# gguf depends on requests, for gguf.utility's RemoteTensor; it imports it only in there.
NETWORK = {
    "aiohttp", "botocore", "certifi", "fsspec", "hf_xet", "httpcore2", "httpx", "httpx2", "huggingface_hub", "http",
    "obstore", "requests", "socket", "ssl", "urllib3",
}  # fmt: skip


@pytest.mark.parametrize("to", ["lora", "model"])
def test_neither_judging_nor_converting_imports_what_reaches_for_a_network(to: str, tmp_path: Path) -> None:
    it = Specimen(tmp_path / "adapter", write_gguf(tmp_path / "base.gguf"))
    it.write()
    given = (str(it.directory), "--base", str(it.base), "--to", to)
    for module, options in (("check", ()), ("to_gguf", ("-o", str(tmp_path / "out.gguf")))):
        status, modules = run_and_list_imports(module, *given, *options)
        assert status == 0
        assert not modules & NETWORK


def test_what_peft_has_to_compute_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = Specimen(tmp_path / "adapter", write_gguf(tmp_path / "base.gguf"))
    it.config = {"peft_type": "IA3", "target_modules": ["down_proj"], "feedforward_modules": ["down_proj"]}
    it.tensors = {f"{UP}.ia3_l": tensor(1, FFN)}
    it.write()
    for name in [name for name in sys.modules if name.startswith("converter.through_peft")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "peft", None)
    options = [str(it.directory), "--base", str(it.base), "--to", "model", "-o", str(tmp_path / "out.gguf")]
    result = CliRunner().invoke(to_gguf.main, options, catch_exceptions=False)
    assert result.exit_code == COULD_NOT
    assert "peft is not installed; run pip install '.[train]' in the clone" in result.stderr


def test_no_module_imports_itself_by_a_detour() -> None:
    """Nor under TYPE_CHECKING, or in a function."""
    graph = grimp.build_graph("converter")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 250
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle
