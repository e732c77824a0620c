import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from converter.errors import ConverterError
from converter.training.data import read_data, split_samples
from converter.training.samples import Chat, Completion, Sample, Text

USER = {"role": "user", "content": "How deep is it?"}
ASSISTANT = {"role": "assistant", "content": "Nine fathoms."}
CHAT = {"messages": [USER, ASSISTANT]}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def learned(data: str | Path) -> tuple[Sample, ...]:
    return read_data(str(data)).learned


def texts_of(samples: tuple[Sample, ...] | None) -> list[str]:
    return sorted(sample.text for sample in samples or () if isinstance(sample, Text))


def refusal(data: str | Path, eval_data: str | Path | None = None) -> str:
    with pytest.raises(ConverterError) as refused:
        read_data(str(data), str(eval_data) if eval_data else None)
    assert "\n" not in refused.value.message
    return refused.value.message.removeprefix(str(Path(data)))


def test_json_lines_and_a_json_list_are_read_alike(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", {"text": "one"}, {"text": "two"})
    whole = tmp_path / "a.json"
    whole.write_text(json.dumps([{"text": "one"}, {"text": "two"}], indent=1), encoding="utf-8")
    assert learned(lines) == (Text(f"{lines}, sample 1", "one"), Text(f"{lines}, sample 2", "two"))
    assert [sample.text for sample in learned(str(whole)) if isinstance(sample, Text)] == ["one", "two"]


def test_a_cell_of_a_csv_file_is_text_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion,id\nMissing?,NA,1\n"A, B",007,2\n', encoding="utf-8")
    assert [(s.prompt, s.completion) for s in learned(str(path)) if isinstance(s, Completion)] == [
        ("Missing?", "NA"),
        ("A, B", "007"),
    ]


def test_parquet_is_read(tmp_path: Path) -> None:
    from datasets import Dataset

    path = str(tmp_path / "a.parquet")
    Dataset.from_list([CHAT]).to_parquet(path)
    assert learned(path) == (Chat(f"{path}, sample 1", (USER, ASSISTANT), range(1, 2)),)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a[1]*.txt"])
def test_a_line_of_a_text_file_is_a_sample_and_an_empty_one_is_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    lines = b"one\n\n  \nfour\n"
    path.write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    assert learned(str(path)) == (Text(f"{path}, sample 1", "one"), Text(f"{path}, sample 4", "four"))


def test_share_gpt_is_a_chat(tmp_path: Path) -> None:
    turns = [("system", ""), ("human", "Hm?"), ("gpt", "Aye."), ("human", "Oh."), ("gpt", "Aye, aye."), ("human", "!")]
    data = write(tmp_path / "a.jsonl", {"conversations": [{"from": who, "value": what} for who, what in turns]})
    (chat,) = learned(data)
    assert isinstance(chat, Chat)
    assert [(message["role"], message["content"]) for message in chat.messages] == [
        ("system", ""),
        ("user", "Hm?"),
        ("assistant", "Aye."),
        ("user", "Oh."),
        ("assistant", "Aye, aye."),
        ("user", "!"),
    ]
    assert chat.completion == range(4, 5)


def test_a_prompt_and_a_completion_of_messages_are_a_chat(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", {"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT]})
    assert learned(data) == (Chat(f"{data}, sample 1", (USER, ASSISTANT, USER, ASSISTANT), range(3, 4)),)


def test_tools_and_their_calls_stay_without_the_nulls_that_arrow_adds(tmp_path: Path) -> None:
    from datasets import Dataset

    calls = [{"type": "function", "function": {"name": name, "arguments": {name: 1}}} for name in ("tide", "wind")]
    told = [[USER, {"role": "assistant", "content": "", "tool_calls": [call]}] for call in calls]
    tools = [{"type": "function", "function": {"name": "tide"}}]
    data = str(tmp_path / "a.parquet")
    Dataset.from_list([{"messages": turns, "tools": json.dumps(tools)} for turns in told]).to_parquet(data)
    read = [sample for sample in learned(data) if isinstance(sample, Chat)]
    assert [list(chat.messages) for chat in read] == told
    assert [list(chat.tools) for chat in read] == [tools, tools]


def test_other_columns_are_left_alone(tmp_path: Path) -> None:
    assert learned(write(tmp_path / "a.jsonl", {**CHAT, "prompt": "no completion", "id": 3}))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"question": "?", "answer": "!"}], ": found answer, question in its samples; wanted messages, or prompt and"),
        ([{"instruction": "?", "output": "!"}], ": found instruction, output in its samples; wanted messages, or"),
        ([{"text": "a"}, {"text": " "}], ", sample 2: text is empty; wanted a text"),
        ([{"text": "a"}, {"text": None}], ", sample 2: text is missing; wanted a text"),
        ([{"text": 3}], ", sample 1: text is 3; wanted a text"),
        ([{"prompt": "a", "completion": ""}], ", sample 1: completion is empty; wanted a text"),
        ([{"prompt": "a", "completion": [ASSISTANT]}], ', sample 1: prompt is "a"; wanted a list of messages'),
        ([{"prompt": [USER], "completion": [USER]}], ", sample 1: completion begins with the role user; wanted assist"),
        (
            [CHAT, {"text": "a"}],
            ": found samples of several forms (messages in sample 1, text in sample 2); wanted one",
        ),
        ([{**CHAT, "text": "a"}], ": found samples of several forms (messages in sample 1, text in sample 1); wanted"),
        ([{"messages": [USER]}], ", sample 1: messages has the roles user; wanted an assistant's turn to learn from"),
        ([{"messages": []}], ", sample 1: messages has no messages"),
        ([{"messages": "Hello"}], ', sample 1: messages is "Hello"; wanted a list of messages'),
        ([{"messages": ["Hello"]}], ', sample 1: messages[0] is "Hello"; wanted an object with role and content'),
        ([CHAT, {"messages": [USER, {"content": "a"}]}], ", sample 2: messages[1] has no role; found content"),
        ([{"messages": [USER, {"role": "assistant"}]}], ", sample 1: messages[1]: content is missing; wanted a text"),
        (
            [{"messages": [USER, {"role": "assistant", "content": [1]}]}],
            ", sample 1: messages[1]: content is [1]; want",
        ),
        ([{"messages": [{**USER, "content": ""}, ASSISTANT]}], ", sample 1: messages[0]: content is empty; wanted a"),
        ([{"conversations": [{"from": "moon", "value": "a"}]}], ', sample 1: conversations[0]: from is "moon"; wanted'),
        ([{**CHAT, "tools": "{"}], ", sample 1: tools is no JSON (Expecting property name"),
    ],
)
def test_what_is_no_sample_is_refused_by_its_place(tmp_path: Path, rows: list[Any], expected: str) -> None:
    assert refusal(write(tmp_path / "a.jsonl", *rows)).startswith(expected)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "a.jsonl",
            '{"text": "a"}\n\n{"text": \n',
            ": can't be read: line 3 is no JSON (Expecting value in column 10)",
        ),
        (
            "a.json",
            '[\n{"text": "a"}\n{"text": "b"}]',
            ": can't be read: line 3 is no JSON (Expecting ',' delimiter in",
        ),
        ("a.jsonl", '\ufeff{"text": "a"}\n{', ": can't be read: line 2 is no JSON"),
        ("a.jsonl", "3\n", ": can't be read: line 1 is no object; wanted a list of objects, or one object a line"),
        ("a.json", '{"text": "a",\n"id": 1}', ": can't be read: line 1 is no JSON"),
        ("a.json", "[3]", ": can't be read: sample 1 is no object"),
        ("a.parquet", "PAR1", ": can't be read: "),
        ("a.jsonl", "", ": holds no samples"),
        ("a.json", "[]", ": holds no samples"),
        ("a.csv", "text\n", ": holds no samples"),
        ("a.csv", "\n", ": can't be read: has no line of column names"),
        ("a.csv", "text,id\na\n", ": can't be read: line 2 has 1 cells, wanted 2"),
        ("a.csv", "text,text\na,b\n", ": can't be read: has two columns of one name"),
        ("a.txt", "\n\n", ": holds no samples"),
        ("a.docx", "text", ": no data in a known format; wanted a file that ends in one of .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: str, expected: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert refusal(path).startswith(expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["missing.jsonl", "missing/train.jsonl", "missing", "a/b/c", "./a/b"])
def test_a_missing_file_is_not_looked_for_on_the_hub(name: str) -> None:
    assert refusal(name).startswith(": not found; wanted a file that ends in")


def test_a_directory_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("# Nothing", encoding="utf-8")
    assert refusal(tmp_path).startswith(": no data in a known format; wanted")


PROGRAM = """
import sys
from converter.errors import ConverterError
from converter.training.data import read_data
read_data(sys.argv[1])
try:
    read_data(sys.argv[2])
except ConverterError:
    sys.exit(7)
"""


def test_local_files_leave_nothing_behind_and_print_nothing(tmp_path: Path) -> None:
    data, broken = write(tmp_path / "a.jsonl", CHAT), tmp_path / "b.jsonl"
    broken.write_text("{", encoding="utf-8")
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "HF_HOME": str(home), "XDG_CACHE_HOME": str(home), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", PROGRAM, data, str(broken)]
    ran = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"", b"")
    assert not home.exists()
    assert not list(temporary.iterdir())


def texts(n: int) -> tuple[Text, ...]:
    return tuple(Text(f"sample {i}", f"text {i}") for i in range(n))


@pytest.mark.parametrize(
    ("n", "share", "expected"), [(100, 0.1, 10), (2, 0.01, 1), (2, 1.0, 1), (5, 0.99, 4), (1, 0.5, None), (9, 0, None)]
)
def test_a_share_is_held_out_with_one_at_least_on_each_side(n: int, share: float, expected: int | None) -> None:
    train, held_out = split_samples(texts(n), share)
    assert (None if held_out is None else len(held_out)) == expected
    assert sorted(map(repr, train + (held_out or ()))) == sorted(map(repr, texts(n)))


def test_the_same_samples_are_held_out_wherever_they_stand() -> None:
    def held_out(samples: tuple[Text, ...]) -> set[str]:
        return {sample.text for sample in split_samples(samples, 0.2)[1] or () if isinstance(sample, Text)}

    moved = tuple(Text("elsewhere", sample.text) for sample in reversed(texts(50)))
    assert held_out(moved) == held_out(texts(50))
    assert held_out(texts(50)) != {f"text {i}" for i in range(10)}


# What the parser takes and we can't, which is less before Python 3.12; and what the parser doesn't take.
@pytest.mark.parametrize("depth", [700 if sys.version_info < (3, 12) else 1500, 200_000])
def test_a_sample_nested_without_end_is_refused(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    tools = "[" * depth + "]" * depth
    path.write_text(json.dumps(CHAT)[:-1] + f', "tools": {tools}}}\n', encoding="utf-8")
    with pytest.raises(ConverterError, match=r"(sample 1:|line 1) is nested too deeply"):
        read_data(str(path))
