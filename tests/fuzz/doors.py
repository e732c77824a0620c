"""The ways in: what reads each kind of input, as the commands and the library do. All but ConverterError is a fault."""

import contextlib
import io
import signal
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Final

import click

from converter import Deployment, check, plan, read_adapter, read_base, write
from converter.cli.check import main as adapter_check
from converter.cli.to_gguf import main as adapter_to_gguf
from converter.cli.train import main as adapter_train
from converter.diagnostics import EVERY
from converter.errors import ConverterError
from converter.fleet.manifest import Defaults, read_manifest
from converter.fleet.rows import refuse_clashes
from converter.judgement import Waivers
from converter.policy import read_policy
from converter.read.imatrix import read_imatrix
from converter.report.attestation import Wanted, attested, read_statements
from converter.training.data import read_data
from converter.training.sweep.space import read_sweep
from tests.fuzz.mutations import Rng

_KINDS: Final = sorted(EVERY)
UNFORESEEN: Final = "an error of ours"  # what a command says of an exception that it didn't foresee


def _adapter(rng: Rng, directory: Path, base: str) -> None:
    ways = (_judge, _judge, _run_check, *((_plan, _run_to_gguf) if base else ()))
    rng.choice(ways)(rng, directory / "adapter", directory / base if base else None)


def _judge(rng: Rng, path: Path, base: Path | None) -> None:
    adapter = read_adapter(path, rename_keys=rng.random() < 0.1)
    over = read_base(base) if base and rng.random() < 0.8 else None
    check(adapter, over, Deployment.of(rng.choice(_KINDS)), values=rng.random() < 0.8)


def _plan(rng: Rng, path: Path, base: Path | None) -> None:
    adapter = read_adapter(path)
    with plan(adapter, read_base(base or adapter), Deployment.of(rng.choice(_KINDS))) as planned:
        write(planned, path.parent / "out")


def _run_check(rng: Rng, path: Path, base: Path | None) -> None:
    formats = ("text", "json", "sarif", "junit", "gitlab", "github", "markdown", "html")
    _run(adapter_check, path, *(("--base", base) if base else ()), "--no-config", "--format", rng.choice(formats))


def _run_to_gguf(rng: Rng, path: Path, base: Path | None) -> None:
    deployment = Deployment.of(rng.choice(_KINDS))
    _run(
        adapter_to_gguf,
        path,
        *(("--base", base) if base else ()),
        *deployment.options.split(),
        "-o",
        path.parent / "out",
        "--dry-run",
    )


def _run(command: click.Command, *arguments: str | Path) -> None:
    """Run a command in this process. Raises AssertionError where it met what it didn't foresee."""
    printed = io.StringIO()
    main: Callable[..., object] = command.main
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), _ending():
        main([str(argument) for argument in arguments])
    assert UNFORESEEN not in printed.getvalue(), printed.getvalue()[-2000:]


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """A command may end as it likes; SIGTERM, which commands take for their own, ends the run."""
    try:
        yield
    except SystemExit as end:
        if end.code == 128 + signal.SIGTERM:
            raise


def _base(_rng: Rng, directory: Path, base: str) -> None:
    model = read_base(directory / base)
    for module in ("model.layers.0.mlp.down_proj", "lm_head", "model.layers.1.self_attn.q_proj"):
        model.shape(module)


def _policy(_rng: Rng, directory: Path, _base: str) -> None:
    policy = read_policy(directory / "adapter-check.toml")
    policy.settings_for(directory / "adapters" / "one")
    tuple(Waivers(policy, date(2026, 12, 1)).uses())


def _attestations(_rng: Rng, directory: Path, _base: str) -> None:
    adapter = directory / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    statements = read_statements(directory / "attestations.jsonl")
    attested(adapter, statements, Wanted(None, "--to lora", None, date(2026, 12, 1)))


def _manifest(_rng: Rng, directory: Path, _base: str) -> None:
    path = next(directory.glob("manifest.*"), directory / "manifest.csv")
    refuse_clashes(tuple(read_manifest(path, Defaults(directory / "base", outputs=directory / "outputs"))))


def _imatrix(_rng: Rng, directory: Path, _base: str) -> None:
    read_imatrix(directory / "imatrix")


def _data(_rng: Rng, directory: Path, _base: str) -> None:
    read_data(str(directory / "data"))


def _space(_rng: Rng, directory: Path, _base: str) -> None:
    read_sweep(str(directory / "sweep.toml"))


def _settings(_rng: Rng, directory: Path, _base: str) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as printed, contextlib.suppress(click.ClickException), _ending():
        adapter_train.make_context("adapter-train", ["--config", str(directory / "train.toml")])
    assert UNFORESEEN not in printed.getvalue(), printed.getvalue()


DOORS: Final[Mapping[str, Callable[[Rng, Path, str], None]]] = {
    "adapter": _adapter,
    "base": _base,
    "policy": _policy,
    "attestations": _attestations,
    "manifest": _manifest,
    "imatrix": _imatrix,
    "data": _data,
    "space": _space,
    "settings": _settings,
}


def go_through(door: str, rng: Rng, directory: Path, base: str) -> None:
    """Read what lies in ``directory``. Every exception that comes out is a fault."""
    with contextlib.suppress(ConverterError):
        DOORS[door](rng, directory, base)
