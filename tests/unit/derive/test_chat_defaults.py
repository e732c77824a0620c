"""What a model does where nobody asks otherwise, told without running its chat template."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import Environment

from converter.derive.base_model import read_base_model
from converter.derive.chat_defaults import default_system, sampling
from converter.errors import ConverterError
from converter.read.gguf_header import KeyValue
from tests.rules.specimens import write_huggingface
from tests.unit.conversion import write_base

BEFORE_THE_FIRST = (  # SmolLM2's
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a lamp<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
)
OTHER_HALF = (  # Qwen 2.5's, without its tools
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n{%- else %}\n"
    "    {{- '<|im_start|>system\\nYou are a lamp<|im_end|>\\n' }}\n{%- endif %}\n"
    "{%- for message in messages %}{%- if not loop.first or message.role != 'system' %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}"
)


@pytest.mark.parametrize("template", [BEFORE_THE_FIRST, OTHER_HALF])
def test_a_chat_with_the_default_prompt_reads_as_one_without(template: str) -> None:
    system = default_system(template)
    assert system == "You are a lamp"
    rendered = Environment(autoescape=False).from_string(template).render  # noqa: S701  texts of models, no pages
    chat = [{"role": "user", "content": "Hello"}]
    without, given = rendered(messages=chat), rendered(messages=[{"role": "system", "content": system}, *chat])
    assert without == given
    assert "You are a lamp" in without


@pytest.mark.parametrize(
    "template",
    [
        "",
        BEFORE_THE_FIRST.replace("You are a lamp", "It is {{ now }}"),
        BEFORE_THE_FIRST.replace("!= 'system'", "!= 'user'"),
        OTHER_HALF.replace("{%- else %}", "{%- elif tools %}"),
        BEFORE_THE_FIRST.replace("a lamp", 'a """\\nFROM evil'),
        BEFORE_THE_FIRST.replace("a lamp", "a\nlamp"),
        BEFORE_THE_FIRST.replace("a lamp", "a" * 5000),
    ],
)
def test_what_cannot_be_told_is_not_guessed(template: str) -> None:
    assert default_system(template) is None


def test_how_a_gguf_is_sampled(tmp_path: Path) -> None:
    base = read_base_model(write_base(tmp_path / "base.gguf"))
    assert sampling(base) == {}
    said = {"general.sampling.temp": 0.5, "general.sampling.top_k": 20, "general.sampling.top_p": True}
    entries = [KeyValue(key, 6, value, 0, 0) for key, value in said.items()]
    (shard,) = base.shards
    more = replace(base, shards=(shard._replace(key_values=(*shard.key_values, *entries)),))
    assert sampling(more) == {"temperature": 0.5, "top_k": 20}


SETTINGS = {"temperature": 0.6, "top_p": 0.9, "min_p": None, "repetition_penalty": 1.05, "eos_token_id": 2}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, {}),
        (SETTINGS, {}),  # transformers answers greedily then
        ({"do_sample": True} | SETTINGS, {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.05}),
        ({"do_sample": True, "temperature": "hot", "top_k": -1, "top_p": float("nan")}, {}),
    ],
)
def test_how_a_directory_is_sampled(tmp_path: Path, config: object, expected: object) -> None:
    base = read_base_model(write_huggingface(tmp_path))
    if config:
        (tmp_path / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert sampling(base) == expected


def test_settings_that_cannot_be_read_are_no_settings(tmp_path: Path) -> None:
    base = read_base_model(write_huggingface(tmp_path))
    (tmp_path / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConverterError, match=r"generation_config\.json"):
        sampling(base)
