"""What options of several commands mean."""

import os
import re
from pathlib import Path
from typing import Any, Final

import click

from converter.derive.locate import located_base

_SCHEMES: Final = ("hf://", "s3://", "gs://")
_NAME: Final = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:@[^/@]+)?"  # ORG/NAME, ORG/NAME@REVISION


class _Here(click.Path):
    """A path on this machine; of a hub or a bucket, adapters to be judged are read and nothing else."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.startswith(_SCHEMES):
            where = "on a hub" if value.startswith("hf://") else "in a bucket"
            self.fail(f"{value} lies {where}; only adapters and their bases may: download it first", param)
        if "\0" in os.fsdecode(value):  # of a TOML file, or of a caller: click asks the system, which raises ValueError
            self.fail(f"{os.fsdecode(value)!r} is no path: it holds a NUL", param)
        return super().convert(value, param, ctx)


class _AdapterByAddress(_Here):
    """A path, or an address on a hub (hf://ORG/NAME@REVISION) or in a bucket (s3://BUCKET/PREFIX)."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.startswith(_SCHEMES):
            from converter.read.hub_address import remote_address

            return remote_address(value)
        return super().convert(value, param, ctx)


class _Base(_Here):
    """A base: a path, or the name of a repository that the hub's cache on this machine has."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return located_base(Path(os.fsdecode(super().convert(value, param, ctx))))


class _BaseByName(_Here):
    """A base: a path; or a repository by its name or its address, where there is no such path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = os.fsdecode(value)
        if text.startswith(_SCHEMES) or (re.fullmatch(_NAME, text) and not os.path.lexists(text)):
            from converter.read.hub_address import remote_address

            return remote_address(text)
        return super().convert(value, param, ctx)


class _SplitSize(click.ParamType[int]):
    """N(M|G) bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from converter.planning.shards import split_size

        nbytes = split_size(str(value))
        if nbytes is None:
            self.fail(f"{value} is no size; give one such as 500M or 4G", param, ctx)
        return nbytes


# click's own check of what can be read would end in a usage text.
PATH: Final = _Here(path_type=Path, readable=False)
ADAPTER: Final = _AdapterByAddress(path_type=Path, readable=False)
SPLIT_SIZE: Final = _SplitSize()
BASE: Final = _Base(path_type=Path, readable=False)
BASE_BY_NAME: Final = _BaseByName(path_type=Path, readable=False)

# What a command says at its end; progress goes to stderr.
FORMAT: Final = click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What is printed at the end: text, or one line of JSON (docs/json.md), whatever the exit status.",
)
DOWNLOAD: Final = (
    "Fetch what --base or an address (hf://, s3://, gs://) names: weights only where they are needed, into a cache. "
    "Without it no network is asked."
)
DOWNLOAD_BASE: Final = (
    "Fetch what --base names from the hub or its bucket, all but its weights. Without it only the cache is looked at."
)
INITIAL_ADAPTER: Final = (
    "The adapter as saved before training, where that changed the base (PiSSA, OLoRA, CorDA, LoRA-GA)."
)
TEXT_ONLY: Final = (
    "Leave out what the adapter changes of a multimodal model's vision and audio parts. Each such tensor is a line of "
    "the ledger. Prompts of text alone are answered as by PEFT, pictures are not."
)
RENAME_KEYS: Final = (
    "Read keys that PEFT doesn't load as it would have written them: those of a wrapper (_orig_mod, module., FSDP's) "
    "or of a bare AutoModel. PEFT itself serves nothing of them."
)

# Of adapter-check alone.
VALUES: Final = (
    "Read the numbers too, and find NaN, deltas without effect and lost rows; or read headers and config alone, and "
    "say what that skips."
)
VERIFY_ATTESTATION: Final = (
    "Judge nothing; say whether FILE attests that these very bytes passed this policy. Signatures are not checked."
)
TARGET: Final = (
    "A server that has to serve the adapter exactly: vllm, vllm@0.32.0, ollama, ... May be given several times. "
    "Without --to only the servers count. docs/targets.md has them all."
)
BASELINE: Final = "Add a waiver to the policy for each fault of today, good until that day."
