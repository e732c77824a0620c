"""adapter-to-gguf --quantize: what is written, what the plan shows, and what is refused in a line."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from converter.cli.to_gguf import main
from fixtures.imatrix import write_imatrix
from tests.rules.specimens import Specimen, head_lora
from tests.unit.conversion import metadata_of, tensors_of, write_base

needs_libgguf = pytest.mark.skipif(not find_spec("libgguf"), reason="needs libgguf (the extra quants)")


@pytest.fixture(autouse=True)
def specimen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Specimen:
    """An adapter with a trained head in the current directory."""
    monkeypatch.chdir(tmp_path)
    it = Specimen(Path("adapter"), write_base(Path("base.gguf")))
    it.tensors |= head_lora()
    it.write()
    return it


def run(*options: str) -> Result:
    return CliRunner().invoke(main, ["adapter", "--base", "base.gguf", *options], catch_exceptions=False)


def test_the_model_is_written_quantised() -> None:
    result = run("--untie", "--quantize", "q4_k_m")
    assert (result.exit_code, result.stderr) == (0, "")
    found = {name: tensor.tensor_type.name for name, tensor in tensors_of(Path("adapter-Q4_K_M.gguf")).items()}
    ends = {"output.weight": "Q8_0", "token_embd.weight": "Q5_0"}  # rows of 32 are no whole number of K-quants
    assert found.items() >= {**ends, "blk.0.attn_q.weight": "Q5_0", "blk.0.attn_norm.weight": "F32"}.items()
    metadata = metadata_of(Path("adapter-Q4_K_M.gguf"))
    assert (metadata["general.file_type"], metadata["general.quantization_version"]) == (15, 2)


def test_the_plan_shows_every_type() -> None:
    result = run("--untie", "--quantize", "Q6_K", "--tensor-type", "attn_V=q5_1", "--dry-run", "--format", "json")
    plan = json.loads(result.stdout)["plan"]
    assert plan["deployment"] == "--untie --to model --quantize Q6_K"
    types = {tensor["name"]: tensor["type"] for tensor in plan["files"][0]["tensors"]}
    assert (types["blk.1.attn_v.weight"], types["blk.1.attn_q.weight"]) == ("Q5_1", "Q8_0")
    assert not Path("adapter-Q6_K.gguf").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--imatrix", "x"], "--imatrix needs --quantize"),
        (["--least-kept", "0"], "--least-kept needs --quantize"),
        (["--quantize", "Q4_K_M", "--to", "lora"], "--quantize is for a merged model"),
        (["--quantize", "Q4_K_M", "--outtype", "f16"], "--quantize is for a merged model"),
        (["--quantize", "Q4_K_M", "--imatrix", "none"], "none: can't be read: No such file"),
        (["--quantize", "Q4_K_M", "--imatrix", "base.gguf"], "base.gguf: is no imatrix: it has no imatrix.datasets"),
        (["--quantize", "Q8_0", "--tensor-type", "q8_0"], "wanted PATTERN=TYPE"),
        (["--quantize", "Q8_0", "--tensor-type", "attn_(=q8_0"], "'attn_(' is no pattern"),
        (["--quantize", "Q8_0", "--token-embedding-type", "Q4_K"], "rows of 32 elements don't fit Q4_K"),
    ],
)
def test_what_is_refused(options: list[str], message: str) -> None:
    result = run("--untie", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_an_imatrix_of_another_model_is_refused() -> None:
    write_imatrix(Path("i.gguf"), {"blk.0.attn_q.weight": np.ones((1, 64), np.float32)})
    result = run("--untie", "--quantize", "Q4_K_M", "--imatrix", "i.gguf")
    assert result.exit_code == 2
    assert "blk.0.attn_q.weight: 64 values, wanted 32" in result.stderr


def test_an_imatrix_is_not_written_over() -> None:
    write_imatrix(Path("i.gguf"), {"blk.0.attn_q.weight": np.ones((1, 32), np.float32)})
    result = run("--untie", "--quantize", "Q4_K_M", "--imatrix", "i.gguf", "-o", "i.gguf")
    assert result.exit_code == 2
    assert "i.gguf: is an input of this conversion" in result.stderr


def test_a_quantised_base_is_quantised_again_only_where_that_is_asked_for(tmp_path: Path) -> None:
    write_base(tmp_path / "base.gguf", outtype="Q8_0")
    result = run("--untie", "--quantize", "Q4_K_M")
    assert result.exit_code == 2
    assert "token_embd.weight is Q8_0 in the base, and would be quantised a second time, to Q5_0" in result.stderr
    assert run("--untie", "--quantize", "Q8_0").exit_code == 0
    assert run("--untie", "--quantize", "Q4_K_M", "--allow-requantize").exit_code == 0


def test_what_rounding_loses_is_refused_until_it_is_accepted(specimen: Specimen) -> None:
    specimen.config["lora_alpha"] = 1e-4  # a delta far below the types' steps
    specimen.write()
    result = run("--untie", "--quantize", "Q4_K_M")
    assert result.exit_code == 1
    assert "NM011" in result.stdout + result.stderr
    assert run("--untie", "--quantize", "Q4_K_M", "--least-kept", "0").exit_code == 0


@needs_libgguf
def test_all_types_are_compared_before_one_is_written() -> None:
    """Of a base whose numbers lie on no grid: the share that a file of each type then keeps is the one foretold."""
    result = run("--untie", "--compare-types", "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    foretold = {of["type"]: of for of in json.loads(result.stdout)["types"]}
    for name in ("Q8_0", "Q4_K_M", "IQ4_NL"):
        written = json.loads(run("--untie", "--quantize", name, "-o", "x.gguf", "--format", "json").stdout)["files"][0]
        found = {tensor["tensor"]: (tensor["share"], tensor["noise"]) for tensor in written["delta_kept"]}
        wanted = {tensor["tensor"]: (tensor["share"], tensor["noise"]) for tensor in foretold[name]["tensors"]}
        assert found.keys() == wanted.keys()
        for tensor, figures in found.items():  # each is small enough to be looked at whole
            assert figures == pytest.approx(wanted[tensor])
        # Without our metadata's digests, which are written with the file.
        assert foretold[name]["nbytes"] == pytest.approx(written["nbytes"], abs=500)
    sizes = [foretold[name]["nbytes"] for name in ("Q8_0", "Q5_K_M", "Q4_K_M")]
    assert sizes == sorted(sizes, reverse=True)
    assert foretold["Q8_0"]["noise"] < foretold["Q5_K_M"]["noise"] < foretold["Q3_K_M"]["noise"]


@needs_libgguf
def test_the_table_names_the_tensor_that_keeps_least() -> None:
    result = run("--untie", "--compare-types")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["type", "size", "kept", "noise", "least", "in"]
    assert "--compare-types is about every type" in run("--compare-types", "--quantize", "Q8_0").stderr
    assert not list(Path().glob("*-Q8_0.gguf"))


@needs_libgguf
def test_the_comparison_is_drawn() -> None:
    assert run("--untie", "--compare-types", "--plot", "x.png").exit_code == 0
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")
    assert run("--untie", "--compare-types", "--plot", "x.html").exit_code == 0
    page = Path("x.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert not re.search(r'(src|href)="http', page)
    assert all(name in page for name in ("Q4_K_M", "MXFP4_MOE", "kept"))
    assert "--plot needs --compare-types" in run("--plot", "x.png").stderr
    assert "x.gif: wanted the name of a .png or .html file" in run("--compare-types", "--plot", "x.gif").stderr
