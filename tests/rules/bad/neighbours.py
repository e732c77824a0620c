"""What lies beside the adapter's own files."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from tests.rules.bad.registry import bad
from tests.rules.specimens import Specimen


class _Runs:
    """Pickled, it is a call of os.system."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@bad("SC004")
def optimizer_of_the_run(it: Specimen, _: Path) -> None:
    it.write()
    weight = torch.nn.Parameter(torch.ones(3))
    torch.save(torch.optim.AdamW([weight]).state_dict(), it.directory / "optimizer.pt")


@bad("SC004")
def older_form_of_torch_save(it: Specimen, _: Path) -> None:
    it.write()
    torch.save({"step": torch.ones(2)}, it.directory / "scheduler.pt", _use_new_zipfile_serialization=False)


@bad("SC005")
def pickle_that_calls_the_shell(it: Specimen, _: Path) -> None:
    it.write()
    (it.directory / "training_args.bin").write_bytes(pickle.dumps(_Runs()))


@bad("SC005")
def pickle_in_a_zip(it: Specimen, _: Path) -> None:
    it.write()
    with zipfile.ZipFile(it.directory / "optimizer.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Runs(), protocol=2))


@bad("SC005")
def second_pickle_of_a_file(it: Specimen, _: Path) -> None:
    it.write()
    (it.directory / "rng_state.pth").write_bytes(pickle.dumps({"a": 1}) + pickle.dumps(_Runs()))


@bad("SC005")
def name_hidden_below_another(it: Specimen, _: Path) -> None:
    """posix.system stays on the stack, torch.Size is taken off again."""
    it.write()
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text for text in (b"posix", b"system", b"torch", b"Size"))
    (it.directory / "rng_state.pth").write_bytes(b"\x80\x04" + texts + b"00\x93\x8c\x04true\x85R.")


@bad("SC005")
def pickle_without_a_mark(it: Specimen, _: Path) -> None:
    it.write()
    (it.directory / "training_args.bin").write_bytes(pickle.dumps(_Runs(), protocol=0))


@bad("SC005")
def pickle_without_a_mark_behind_another(it: Specimen, _: Path) -> None:
    """As torch.load reads its older form: one after the other."""
    it.write()
    broken = pickle.dumps(_Runs(), protocol=1)[:-1] + b"\xff"
    (it.directory / "optimizer.pt").write_bytes(pickle.dumps(119) + pickle.dumps(1001, protocol=0) + broken)


@bad("SC005")
def broken_pickle(it: Specimen, _: Path) -> None:
    it.write()
    (it.directory / "optimizer.pt").write_bytes(pickle.dumps(_Runs())[:-1] + b"\xff")


@bad("SC006")
def link_to_another_directory(it: Specimen, _: Path) -> None:
    it.write()
    outside = it.directory.parent / "outside.md"
    outside.write_text("# A model card", encoding="utf-8")
    (it.directory / "README.md").symlink_to(outside)


@bad("SC007")
def template_that_asks_for_classes(it: Specimen, _: Path) -> None:
    it.write()
    template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    (it.directory / "chat_template.jinja").write_text(template, encoding="utf-8")
