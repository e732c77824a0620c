"""Draft the table of an architecture from what llama.cpp does with a tiny model of it, or check the one that is there.

    python -m tools.architecture NAME [FIELD=JSON ...]

NAME is a model of fixtures, or transformers' model_type with these FIELDs in its config beside the common tiny sizes.
A table is checked tensor by tensor, and left out or wrong entries end with status 1; a draft says what differs from the
closest table. What can't be told is a question mark: sizes that differ by layer, and orders that are no loops.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gguf import GGUFReader
from transformers import AutoConfig
from transformers.utils import logging

from converter.architectures import MODEL_TYPES
from converter.architectures import _table as table_as_written
from converter.verification.llama_cpp import LlamaCpp, LlamaCppFailed
from fixtures.mapped_gguf import without_head
from fixtures.more_models import COMMON
from fixtures.tiny import token_sequences
from tools.coded_models import SUBJECTS, Subject, random
from tools.draft_table import Entries, closest, modules, stated, table_lines, toml
from tools.honoured import Graph
from tools.llama_cpp_sources import Job, convert
from tools.measured_tables import Measured, differences, measured


def main(name: str, *fields: str) -> int:
    """Print a draft, or what is wrong with the table that is there."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    own = {key: json.loads(value) for key, _, value in (field.partition("=") for field in fields)}
    known = SUBJECTS.get(name, Subject(name, name, COMMON))
    subject = replace(known, fields={**known.fields, **own})
    with TemporaryDirectory() as directory:
        twice = measured([subject], Path(directory))[name]
        if subject.model_type in MODEL_TYPES:
            return _checked(twice)
        model = Path(directory) / "random"
        random(subject, model)
        gguf = model.with_suffix(".gguf")
        failed = convert([Job(model, gguf)])
        if failed:
            print("\n".join(failed.values()))
            return 2
        try:
            print("\n".join(_draft(subject, modules(twice), gguf)))
        except LlamaCppFailed as refused:  # most often a size that its loader takes for granted
            print(refused)
            return 2
        return 0


def _checked(twice: Sequence[Measured]) -> int:
    wrong = [str(difference) for found in twice for difference in differences(found)]
    print("\n".join(wrong) or "The table is what llama.cpp's converter does.")
    return 1 if wrong else 0


def _draft(subject: Subject, drafted: Entries, gguf: Path) -> Iterator[str]:
    like, said, head = _of_graph(drafted, gguf)
    config = AutoConfig.for_model(subject.model_type).get_text_config()
    below = table_as_written(like)
    sources = f"llama.cpp src/models/, conversion/; transformers models/{subject.model_type}"
    yield f"# {subject.name}: drafted. Source: {sources}."
    yield from ("", f'like = "{like}"', "", *(f"# {line}" for line in head))
    yield from ("# What its converter wrote:", *(f"#   {line}" for line in _key_values(gguf)), "")
    yield "# What the config class takes where config.json says nothing; published configs leave defaults out."
    yield from ("[config.defaults]", *table_lines(_defaults(stated(type(config)()), below)), "")
    yield from toml(said)


def _of_graph(drafted: Entries, gguf: Path) -> tuple[str, Mapping[str, Any], Sequence[str]]:
    """The closest table, what is left to say with what the graph does, and what becomes of a head."""
    with LlamaCpp() as llama_cpp, Graph(gguf, llama_cpp) as graph:
        for entries in drafted.values():
            for entry in entries:
                _measure(entry, graph)
        like, said = closest(drafted)
        reads = graph.reads_head()
        head = [f"[graph] reads_output = {str(reads).lower()}"]
        if reads and _wants_head(gguf, llama_cpp):
            head.append("The loader wants output.weight: [config.fixed] tie_word_embeddings = [false]")
        return like, said, head


def _measure(entry: dict[str, Any], graph: Graph) -> None:
    stems = [name.removesuffix(".weight") for name in graph.tensors]
    stem = next((stem for stem in stems if entry["tensor"] in {stem, _pattern(stem)}), None)
    if stem is None or entry.get("problem"):
        return
    if graph.adds_bias(stem):
        entry["bias"] = True
    if len(entry["shape"]) > 1:
        entry["lora"] = bool(graph.honours_lora(f"{stem}.weight"))


def _pattern(stem: str) -> str:
    first, dot, rest = stem.partition(".")
    return f"{first}.{{i}}.{rest.partition('.')[2]}" if first == "blk" and dot else stem


def _wants_head(gguf: Path, llama_cpp: LlamaCpp) -> bool:
    try:
        llama_cpp.logits(without_head(gguf, gguf.with_name("headless.gguf")), token_sequences(1))
    except LlamaCppFailed:
        return True
    return False


def _key_values(gguf: Path) -> Iterator[str]:
    reader = GGUFReader(gguf)
    name = str(reader.fields["general.architecture"].contents())
    yield f"general.architecture = {name}"
    for key, field in reader.fields.items():
        if key.startswith(f"{name}."):
            yield f"{key} = {field.contents()}"


def _defaults(fields: Mapping[str, Any], below: Mapping[str, Any]) -> Mapping[str, Any]:
    rope = fields.get("rope_parameters") or {}
    fields = {**{name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}, **fields}
    asked = {**below["config"]["defaults"], **dict.fromkeys(below["metadata"]["required"].values())}
    asked |= dict.fromkeys(("num_key_value_heads", "head_dim", "num_experts", "moe_intermediate_size"))
    return {name: fields[name] for name in asked if isinstance(fields.get(name), int | float | str)}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
