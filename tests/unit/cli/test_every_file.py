"""Every file that a command reads, made into what never ends, is too large, or lies elsewhere: one line, at once.

docs/limits.md has the same list. Each case is the command itself; none may wait, or take more than the good run does.
"""

import bz2
import gzip
import json
import lzma
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from converter.cli import check, train
from converter.errors import COULD_NOT, FINE, JUDGED_BAD
from converter.read import limits
from converter.training import run as train_run
from converter.training.settings import TrainingSettings
from converter.training.watch import Unwatched
from fixtures.adapters import tiny_adapter
from fixtures.doorman import Doorman
from fixtures.imatrix import random_sums, write_imatrix
from fixtures.tiny import TinyModel
from fixtures.trainable import CHAT_TEMPLATE, chats, trainable

PAGE = Path(__file__).parents[3] / "docs" / "limits.md"
BASE = TinyModel("llama")
HUGE = 100 << 30
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Door(NamedTuple):
    """A file of the world below, the command that reads it, and how that ends where it can't.

    ``given`` is a file that a user names: its links are followed. ``unread`` is one that a command does without.
    """

    path: str
    command: str
    arguments: str
    status: int = COULD_NOT
    given: bool = False
    unread: bool = False
    before: str = ""  # a command that makes the file


CHECK = "adapter --base base --no-config"
TRAIN = "--base base --output out --general-text general.txt --max-steps 2 --warmup-ratio 0 --r 4 --max-length 128"
CHATS = f"{TRAIN} --data chats.jsonl"
RESUMED = f"{CHATS} --output begun --save-steps 1"
SWEEP = f"{CHATS} --output swept --sweep sweep.toml"
TO_MODEL = "adapter --base base --to model -o out.gguf"
VERIFY = "adapter --base base --model merged.gguf"

QUICK = {
    "the adapter's config": Door("adapter/adapter_config.json", "check", CHECK, JUDGED_BAD),
    "the adapter's weights": Door("adapter/adapter_model.safetensors", "check", CHECK, JUDGED_BAD),
    "an index": Door("sharded/adapter_model.safetensors.index.json", "check", "sharded --no-config", JUDGED_BAD),
    "a shard": Door("sharded/one.safetensors", "check", "sharded --no-config", JUDGED_BAD),
    "the adapter's tokenizer": Door("adapter/tokenizer.json", "check", CHECK, JUDGED_BAD),
    "the tokenizer's config": Door("adapter/tokenizer_config.json", "check", CHECK, JUDGED_BAD),
    "a chat template": Door("adapter/chat_template.jinja", "check", CHECK, JUDGED_BAD),
    "the record of the base": Door("adapter/base_fingerprint.json", "check", CHECK, unread=True),
    "a pickle": Door("adapter/training_args.bin", "check", CHECK, JUDGED_BAD, unread=True),
    "the base's config": Door("base/config.json", "check", CHECK),
    "the base's weights": Door("base/model.safetensors", "check", CHECK),
    "the base's index": Door("parts/model.safetensors.index.json", "check", "adapter --base parts --no-config"),
    "a shard of the base": Door("parts/one.safetensors", "check", "adapter --base parts --no-config"),
    "a reference of the hub's cache": Door(
        "hub/models--me--tiny/refs/main", "check", "adapter --base me/tiny --no-config", unread=True
    ),
    "a policy": Door("policy.toml", "check", "adapter --config policy.toml", given=True),
    "the nearest policy": Door("adapter-check.toml", "check", "adapter", given=True),
    "attestations": Door(
        "attested.jsonl", "check", "adapter --no-config --to lora --verify-attestation attested.jsonl", given=True
    ),
    "the base's tokenizer": Door("base/tokenizer.json", "to_gguf", TO_MODEL, JUDGED_BAD),
    "how the base is sampled": Door("base/generation_config.json", "to_gguf", f"{TO_MODEL} --modelfile"),
    "a GGUF": Door("base.gguf", "to_gguf", "adapter --base base.gguf -o out.gguf", given=True),
    "an imatrix": Door(
        "imatrix.gguf",
        "to_gguf",
        "adapter --base base.gguf --to model --quantize q8_0 --imatrix imatrix.gguf -o out.gguf",
        given=True,
    ),
}

# What takes torch and transformers, each of them seconds.
SLOW = {
    **{
        f"the base's {name}, in a training": Door(f"base/{name}", "train", CHATS)
        for name in (
            *("config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
            *(
                "chat_template.jinja",
                "added_tokens.json",
                "special_tokens_map.json",
                "additional_chat_templates/a.jinja",
            ),
        )
    },
    **{
        f"samples in {name}": Door(name, "train", f"{TRAIN} --data {name}", given=True)
        for name in ("chats.jsonl", "a.csv", "a.parquet", "a.txt", "a.json.gz", "a.json.bz2", "a.json.xz", "a.json.zst")
    },
    "samples in a directory": Door("samples/a.jsonl", "train", f"{TRAIN} --data samples"),
    "samples to evaluate on": Door("a.json.gz", "train", f"{CHATS} --eval-data a.json.gz", given=True),
    "the general text": Door("general.txt", "train", CHATS, given=True),
    "a template": Door("template.jinja", "train", f"{CHATS} --chat-template template.jinja", given=True),
    "settings": Door("settings.toml", "train", f"{CHATS} --config settings.toml", given=True),
    "the settings of a run": Door("begun.training/train.toml", "train", f"{RESUMED} --resume", given=True),
    "the log of a run": Door("begun.training/metrics.jsonl", "train", f"{RESUMED} --resume", given=True),
    **{
        f"a checkpoint's {name}": Door(f"begun.training/checkpoint-1/{name}", "train", f"{RESUMED} --resume")
        for name in ("trainer_state.json", "optimizer.pt", "rng_state.pth", "adapter_model.safetensors")
    },
    "a sweep's plan": Door("sweep.toml", "train", SWEEP, given=True),
    "a sweep's record": Door("swept/sweep.json", "train", SWEEP, given=True),
    "a sweep's study": Door("swept/study.db", "train", SWEEP),
    "prompts": Door("prompts.txt", "verify", f"{VERIFY} --prompts prompts.txt", given=True),
    "token ids": Door("ids.txt", "verify", f"{VERIFY} --tokens ids.txt", given=True),
    "a GGUF to prove": Door("merged.gguf", "verify", VERIFY, JUDGED_BAD, given=True),
    "the adapter's config, in a proof": Door("adapter/adapter_config.json", "verify", VERIFY, JUDGED_BAD),
    "the adapter's weights, in a proof": Door("adapter/adapter_model.safetensors", "verify", VERIFY, JUDGED_BAD),
    "the base's config, in a proof": Door("base/config.json", "verify", VERIFY),
    "the base's tokenizer, in a proof": Door("base/tokenizer.json", "verify", VERIFY),
}


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE)


SHAPES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "directory": os.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "sparse": _sparse,
}


def make_world(place: Path) -> None:
    """Everything that a door names, and good."""
    place.mkdir()
    shutil.copytree(trainable(BASE), place / "base")
    shutil.copytree(tiny_adapter("plain", BASE), place / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(place / "base" / name, place / "adapter" / name)
    for directory in ("base", "adapter"):
        (place / directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    (place / "base" / "generation_config.json").write_text("{}", encoding="utf-8")
    (place / "adapter" / "training_args.bin").write_bytes(b"\x80\x02N.")
    (place / "adapter" / "base_fingerprint.json").write_text("{}", encoding="utf-8")
    for name, of, weights in (("sharded", "adapter", "adapter_model"), ("parts", "base", "model")):
        shutil.copytree(place / of, place / name)
        _shard(place / name, f"{weights}.safetensors")
    shutil.copyfile(BASE.gguf, place / "base.gguf")
    write_imatrix(place / "imatrix.gguf", random_sums(BASE.gguf))
    cached = place / "hub" / "models--me--tiny"
    shutil.copytree(place / "base", cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    for name in ("policy.toml", "adapter-check.toml"):
        (place / name).write_text('fail-on = "error"\n', encoding="utf-8")
    with pytest.raises(SystemExit, match="0"):
        check.main(
            [str(place / "adapter"), "--no-config", "--to", "lora", "--attest", str(place / "attested.jsonl"), "-q"]
        )


def make_more(place: Path) -> None:
    """What training, sweeps and proofs read; those of earlier runs, too."""
    (place / "base" / "additional_chat_templates").mkdir()
    (place / "base" / "additional_chat_templates" / "a.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    for name in ("added_tokens.json", "special_tokens_map.json"):
        (place / "base" / name).write_text("{}", encoding="utf-8")
    (place / "chats.jsonl").write_text(chats(), encoding="utf-8")
    (place / "samples").mkdir()
    shutil.copyfile(place / "chats.jsonl", place / "samples" / "a.jsonl")
    rows = [{"prompt": f"how many {i}", "completion": f"so many {i}"} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), place / "a.parquet")
    (place / "a.csv").write_text(
        "prompt,completion\n" + "".join(f"how {i},so {i}\n" for i in range(20)), encoding="utf-8"
    )
    (place / "a.txt").write_text("".join(f"how many {i}\n" for i in range(20)), encoding="utf-8")
    text = chats().encode()
    for ending, packed in (("gz", gzip.compress(text)), ("bz2", bz2.compress(text)), ("xz", lzma.compress(text))):
        (place / f"a.json.{ending}").write_bytes(packed)
    (place / "a.json.zst").write_bytes(pa.compress(text, codec="zstd", asbytes=True))
    (place / "general.txt").write_text("The river rises in the hills.", encoding="utf-8")
    (place / "template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    (place / "settings.toml").write_text("seed = 1\n", encoding="utf-8")
    plan = "[sweep]\nsampler = 'grid'\n[space]\nr = [4]\nhead = ['none']\n"
    (place / "sweep.toml").write_text(plan, encoding="utf-8")
    (place / "prompts.txt").write_text("How many?\nSo many.\n", encoding="utf-8")
    (place / "ids.txt").write_text("1 2 3 4 5\n", encoding="utf-8")
    with chdir(place):
        context = train.main.make_context("adapter-train", RESUMED.split())
        options = {field.name: context.params[field.name] for field in fields(TrainingSettings)}
        with pytest.raises(KeyboardInterrupt):
            train_run.train(TrainingSettings(**options), Interrupted())


class Interrupted(Unwatched):
    """Ctrl-C behind the first step, whose checkpoint stays."""

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """End the run."""
        del values
        if step == 2:
            raise KeyboardInterrupt


def _shard(directory: Path, name: str) -> None:
    weights = (directory / name).rename(directory / "one.safetensors")
    header = weights.read_bytes()
    keys = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
    index = {"weight_map": {key: weights.name for key in keys if key != "__metadata__"}}
    (directory / f"{name}.index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("world") / "good"
    make_world(place)
    return place


@pytest.fixture
def world(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "world", copy_function=os.link)
    return tmp_path / "world"


@pytest.fixture(scope="module")
def quick() -> Iterator[Doorman]:
    with Doorman("converter.cli.check", "converter.cli.to_gguf", "converter.values", HF_HUB_CACHE="hub") as doorman:
        yield doorman


def ends(door: Door, world: Path, doorman: Doorman) -> tuple[int, str]:
    """The command's status and what it said. It says one line where it couldn't, and takes what it should."""
    ended = doorman.run(world, door.command, *door.arguments.split())
    said = [line for line in ended.stderr.splitlines() if not line.startswith("training step ")]
    assert len(said) == 1 or ended.status != COULD_NOT, ended
    assert "error of ours" not in ended.stderr
    assert ended.seconds < 10, ended
    assert ended.nbytes < 2_000_000_000, ended
    return ended.status, ended.stdout + ended.stderr


def judge(shape: str, door: Door, world: Path, doorman: Doorman) -> None:
    path = world / door.path
    path.unlink(missing_ok=True)
    SHAPES[shape](path)
    status, said = ends(door, world, doorman)
    if door.unread:
        assert status in (FINE, door.status)
    else:
        assert status in (door.status, COULD_NOT), said  # what may not be looked at is the latter everywhere
        assert path.name in said, said


def judge_link(door: Door, world: Path, doorman: Doorman) -> None:
    path = world / door.path
    path.symlink_to(path.rename(world.parent / f"elsewhere-{path.name}"))
    status, said = ends(door, world, doorman)
    if door.unread:
        assert status in (FINE, door.status)
    elif door.given:
        assert status == FINE, said
    else:
        assert (status, "out of its directory" in said or "outside of its directory" in said) == (door.status, True), (
            said
        )


def judge_good(door: Door, world: Path, doorman: Doorman) -> None:
    status, said = ends(door, world, doorman)
    assert status == FINE, said


SOME = {"sparse", "link"}  # the rest of the shapes are told by tests of the one place that opens files
WAYS: dict[str, Callable[[Door, Path, Doorman], None]] = {
    **{shape: partial(judge, shape) for shape in SHAPES},
    "link": judge_link,
    "good": judge_good,
}
CASES = [pytest.param(name, way, marks=[] if way in SOME else pytest.mark.thorough) for name in QUICK for way in WAYS]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_file_is_read_within_its_bounds(name: str, way: str, world: Path, quick: Doorman) -> None:
    WAYS[way](QUICK[name], world, quick)


@pytest.fixture(scope="module")
def slow() -> Iterator[Doorman]:
    modules = ("converter.training.run", "converter.training.sweep.trained", "converter.verification.verification")
    with Doorman(*modules) as doorman:
        yield doorman


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory, slow: Doorman) -> Path:
    place = tmp_path_factory.mktemp("more") / "good"
    make_world(place)
    make_more(place)
    merged, swept = TO_MODEL.replace("out.gguf", "merged.gguf"), SWEEP
    assert [slow.run(place, *words).status for words in (("to_gguf", *merged.split()), ("train", *swept.split()))] == [
        0,
        0,
    ]
    return place


@pytest.mark.thorough
@pytest.mark.llama
@pytest.mark.parametrize("way", [*SHAPES, "link", "good"])
@pytest.mark.parametrize("name", SLOW)
def test_so_is_every_file_of_trainings_and_proofs(
    name: str, way: str, more: Path, tmp_path: Path, slow: Doorman
) -> None:
    shutil.copytree(more, tmp_path / "world")  # a run changes what it goes on with
    WAYS[way](SLOW[name], tmp_path / "world", slow)


def test_the_page_lists_every_file() -> None:
    """The files of the doors, and no others; each with a bound, and every bound of bytes with a file."""
    page = PAGE.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.partition("## Every file")[2].partition("## Counts")[0].splitlines()]
    rows = [row for row in rows if len(row) == 4][1:]
    named = {name for files, *_ in rows for name in re.findall(r"`([^`]+)`", files)} - {"refs"}
    assert named == {Path(door.path).name for door in (*QUICK.values(), *SLOW.values())}
    bounds = {name for _, _, bound, _ in rows for name in re.findall(r"[A-Z_]{4,}", bound)}
    assert bounds == {name for name in vars(limits) if name.endswith("_NBYTES")}
