"""The command adapter-to-gguf: what its options do, what it prints, where it writes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from converter.cli.to_gguf import main
from tests.rules.specimens import Specimen, head_lora, write_gguf
from tests.unit.conversion import metadata_of, tensors_of, write_base


@pytest.fixture
def specimen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Specimen:
    """An adapter with a trained head in the current directory."""
    monkeypatch.chdir(tmp_path)
    it = Specimen(Path("adapter"), write_base(Path("base.gguf")))
    it.tensors |= head_lora()
    it.write()
    return it


def run(*options: str) -> Result:
    return CliRunner().invoke(main, ["adapter", "--base", "base.gguf", *options], catch_exceptions=False)


def files() -> set[str]:
    """The files in the current directory that were not there before."""
    found = {path.as_posix() for path in Path().rglob("*") if path.is_file()}
    return found - {"base.gguf", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"}


@pytest.mark.usefixtures("specimen")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--untie"], {"adapter-model.gguf"}),
        (["--untie", "--to", "model"], {"adapter-model.gguf"}),
        (["--untie", "--to", "lora"], {"adapter-gguf/untied-base.gguf", "adapter-gguf/lora.gguf"}),
        (["--untie", "-o", "x.gguf"], {"x.gguf"}),
        (["--untie", "--to", "lora", "-o", "x"], {"x/untied-base.gguf", "x/lora.gguf"}),
        (["--untie", "--modelfile"], {"adapter-model.gguf", "adapter-model.Modelfile"}),
        (["--untie", "--modelfile", "-o", "x.gguf"], {"x.gguf", "x.Modelfile"}),
        (["--untie", "--split-max-size", "30K"], {f"adapter-model-0000{no}-of-00003.gguf" for no in (1, 2, 3)}),
        (["--untie", "--split-max-size", "1G"], {"adapter-model.gguf"}),
        (["--untie", "--dry-run"], set()),
        (["--untie", "--to", "lora", "--dry-run"], set()),
        (["--untie", "--dry-run", "--format", "json", "--modelfile"], set()),
    ],
)
def test_what_is_written(options: list[str], expected: set[str]) -> None:
    result = run(*options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert files() == expected


@pytest.mark.usefixtures("specimen")
def test_what_is_told_of_shards() -> None:
    first = "x-00001-of-00003.gguf"
    told = run("--untie", "-o", "x.gguf", "--split-max-size", "30K").stdout
    assert told.startswith(f"{first} and 2 more  ")
    assert f"--model {first}\n" in told
    assert f"llama-server -m {first}\n" in told
    (file,) = json.loads(run("--untie", "-o", "x.gguf", "--split-max-size", "30K", "--format", "json").stdout)["files"]
    assert (file["path"], file["replaced"]) == (first, True)
    assert file["shards"] == [first, "x-00002-of-00003.gguf", "x-00003-of-00003.gguf"]


@pytest.mark.usefixtures("specimen")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--untie", "--split-max-size", "4GB"], "4GB is no size; give one such as 500M or 4G"),
        (["--untie", "--split-max-size", "0"], "0 is no size; give one such as 500M or 4G"),
        (["--split-max-size", "4G"], "--split-max-size needs --to model"),
        (["--untie", "--split-max-size", "4G", "--modelfile"], "--split-max-size needs --to model, and no --modelfile"),
    ],
)
def test_what_can_not_be_split(options: list[str], message: str) -> None:
    result = run(*options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert files() == set()


@pytest.mark.usefixtures("specimen")
def test_a_modelfile_is_not_written_over_another_file() -> None:
    Path("x.Modelfile").write_text("FROM ./x.gguf\nPARAMETER temperature 0\n", encoding="utf-8")
    result = run("--untie", "--modelfile", "-o", "x.gguf")
    assert result.exit_code == 2
    assert "x.Modelfile: is there already, and says something else" in result.stderr
    assert files() == {"x.Modelfile"}
    Path("x.Modelfile").unlink()
    for _ in range(2):
        assert run("--untie", "--modelfile", "-o", "x.gguf").exit_code == 0


@pytest.mark.usefixtures("specimen")
@pytest.mark.parametrize("name", ["x.Modelfile", "x\nSYSTEM evil.gguf"])
def test_a_model_that_its_modelfile_cannot_name_is_not_written(name: str) -> None:
    result = run("--untie", "--modelfile", "-o", name)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert files() == set()


def test_without_untie_a_lora_is_the_default(specimen: Specimen) -> None:
    specimen.tensors = {key: value for key, value in specimen.tensors.items() if "lm_head" not in key}
    specimen.write()
    assert run().exit_code == 0
    assert run("--to", "model").exit_code == 0
    assert files() == {"adapter-lora.gguf", "adapter-model.gguf"}


@pytest.mark.usefixtures("specimen")
@pytest.mark.parametrize("options", [[], ["--to", "lora"], ["--to", "model"]])
def test_a_refusal_says_what_to_do_instead(options: list[str]) -> None:
    result = run(*options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "HD001" in result.stderr
    assert "adapter-to-gguf adapter --base base.gguf --untie" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("adapter-to-gguf: adapter: refused for --to ")
    assert files() == set()


@pytest.mark.usefixtures("specimen")
def test_a_refusal_for_machines() -> None:
    result = run("--format", "json")
    data = json.loads(result.stdout)
    assert result.exit_code == 1
    assert "HD001" in {finding["code"] for finding in data["judgement"]["findings"]}


@pytest.mark.usefixtures("specimen")
def test_a_plan_is_told_as_text() -> None:
    lines = run("--untie", "--dry-run").stdout.splitlines()
    assert lines[0].startswith("plan: llama, --untie --to model, ")
    assert sum("output.weight" in line and "token_embd.weight + 8 * " in line for line in lines) == 1
    assert sum(line.lstrip().startswith("tensor ") for line in lines) == 14
    assert any("lora_alpha" in line for line in lines)


@pytest.mark.usefixtures("specimen")
def test_a_plan_for_machines_is_the_one_that_is_written() -> None:
    planned = json.loads(run("--untie", "--dry-run", "--format", "json").stdout)
    written = json.loads(run("--untie", "--format", "json").stdout)
    assert planned["plan"] == written["plan"]
    assert "files" not in planned
    (file,) = written["files"]
    assert file["nbytes"] == Path(file["path"]).stat().st_size
    assert not file["reused"]
    assert {kept["tensor"] for kept in file["delta_kept"]} == {
        tensor["name"] for tensor in planned["plan"]["files"][0]["tensors"] if "merge" in tensor["source"]
    }


@pytest.mark.usefixtures("specimen")
def test_what_was_written_is_told_with_the_next_step() -> None:
    lines = run("--untie").stdout.splitlines()
    assert lines[0].startswith("adapter-model.gguf  ")
    assert lines[1] == "adapter tensors: 14 applied"
    assert lines[2].startswith("delta kept after rounding: 1.000 median, ")
    assert lines[-2] == "next: adapter-verify adapter --base base.gguf --model adapter-model.gguf"


@pytest.mark.usefixtures("specimen")
def test_the_next_step_of_two_files() -> None:
    first, second = (run("--untie", "--to", "lora").stdout.splitlines() for _ in range(2))
    files = "--lora adapter-gguf/lora.gguf --base-gguf adapter-gguf/untied-base.gguf"
    assert first[-2] == f"next: adapter-verify adapter --base base.gguf {files}"
    assert "already there, reused" not in first[0]
    assert "already there, reused" in second[0]


@pytest.mark.usefixtures("specimen")
def test_a_modelfile_names_the_model_beside_it() -> None:
    Path("deep").mkdir()
    result = run("--untie", "--modelfile", "-o", "deep/my model.gguf")
    lines = Path("deep/my model.Modelfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["FROM ./my model.gguf"]
    assert lines[0] == "# ollama create NAME -f my model.Modelfile"
    assert "OLLAMA_GO_TEMPLATE=0" in lines[2]
    assert result.stdout.splitlines()[-2:] == [
        "serve: llama-server -m 'deep/my model.gguf'",
        "serve: ollama create NAME -f 'deep/my model.Modelfile'",
    ]


@pytest.mark.usefixtures("specimen")
def test_what_serves_it_is_said() -> None:
    assert run("--untie", "--to", "lora", "-o", "x").stdout.splitlines()[-1] == (
        "serve: llama-server -m x/untied-base.gguf --lora x/lora.gguf"
    )
    assert "serve: llama-server -m x.gguf\n" in run("--untie", "-o", "x.gguf").stdout


@pytest.mark.usefixtures("specimen")
@pytest.mark.parametrize("options", [["--to", "lora"], ["--untie", "--to", "lora"], []])
def test_a_modelfile_is_for_a_model(options: list[str]) -> None:
    result = run("--modelfile", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("adapter-to-gguf: --modelfile needs --to model")


@pytest.mark.usefixtures("specimen")
@pytest.mark.parametrize(
    ("outtype", "expected"), [("auto", "F32"), ("as-base", "F32"), ("f16", "F16"), ("bf16", "BF16"), ("q8_0", "Q8_0")]
)
def test_the_type_of_touched_tensors(outtype: str, expected: str) -> None:
    assert run("--untie", "--outtype", outtype, "-o", "x.gguf").exit_code == 0
    types = {name: tensor.tensor_type.name for name, tensor in tensors_of(Path("x.gguf")).items()}
    assert (types["output.weight"], types["token_embd.weight"]) == (expected, "F32")


def test_a_base_that_the_adapter_names_is_found(specimen: Specimen) -> None:
    specimen.config["base_model_name_or_path"] = "base.gguf"
    specimen.write()
    result = CliRunner().invoke(main, ["adapter", "--untie"], catch_exceptions=False)
    assert result.exit_code == 0
    assert metadata_of(Path("adapter-model.gguf"))["odd.text"] == "tab\t, line\n, Größe"


@pytest.mark.usefixtures("specimen")
@pytest.mark.parametrize("path", ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "."])
def test_other_ways_to_name_the_adapter(path: str) -> None:
    result = CliRunner().invoke(main, [path, "--base", "base.gguf", "--untie"], catch_exceptions=False)
    assert result.exit_code == 0
    assert files() == {"adapter-model.gguf"}


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_what_the_judgement_went_past_is_said(options: list[str], specimen: Specimen) -> None:
    specimen.config |= {"base_model_name_or_path": "meta-llama/Llama-2-7b", "target_modules": None}
    specimen.write()
    base = Path("base.gguf")
    write_gguf(base.with_name("llama.gguf"), name="Llama 3.2 1B").replace(base)
    said = run("--untie", *options).stdout
    assert "warning BM006 another-base-named: base_model_name_or_path: " in said
    assert "not checked: LO021 module-missing: adapter_config.json doesn't tell which modules have a delta" in said


@pytest.mark.usefixtures("specimen")
def test_a_file_that_is_replaced_is_told() -> None:
    assert "replaced" not in run("--untie").stdout
    assert "another file was there, and is replaced" in run("--untie").stdout
    assert [file["replaced"] for file in json.loads(run("--untie", "--format", "json").stdout)["files"]] == [True]


def test_json_has_the_judgement(specimen: Specimen) -> None:
    specimen.config["target_modules"] = None
    specimen.write()
    judgement = json.loads(run("--untie", "--dry-run", "--format", "json").stdout)["judgement"]
    assert {"LO021", "CF015"} == {skip["code"] for skip in judgement["skipped"]}
