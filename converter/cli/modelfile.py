"""``--modelfile``: what Ollama reads, beside the model.

https://docs.ollama.com/modelfile. Since 0.30.0 Ollama runs llama-server, by the chat template in the model, and samples
by settings of its own where the Modelfile has none (llm/llama_server.go, server/routes.go in its sources).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from converter.errors import ConverterError
from converter.shell import as_typed

if TYPE_CHECKING:
    from converter.planning.conversion_plan import ConversionPlan

_SUFFIX: Final = ".Modelfile"
# "using autodetected template": of those in template/ of its sources, the one that is fewer than 100 edits away.
_TEXT: Final = """\
# ollama create NAME -f {modelfile}
# Since 0.30.0 Ollama uses the model's own chat template; but where `ollama create` says "using autodetected template",
# only if `ollama serve` is started with OLLAMA_GO_TEMPLATE=0.
FROM ./{model}
"""
_PARAMETERS: Final = {"repetition_penalty": "repeat_penalty"}  # Ollama's name where it is another


def check_modelfile(plan: "ConversionPlan", output: Path) -> None:
    """Raise ConverterError, before anything is written, where the model's Modelfile couldn't be."""
    from converter.writing.outputs import refuse_other_text

    if output.suffix == _SUFFIX:
        raise ConverterError(f"{output}: is the Modelfile's own name; give the model another with -o, such as x.gguf")
    if not output.name.isprintable():
        raise ConverterError(f"{output}: can't be named in a Modelfile; give the model another name with -o")
    refuse_other_text(output.with_suffix(_SUFFIX), _text(plan, output))


def write_modelfile(plan: "ConversionPlan", output: Path) -> None:
    """Write it beside the model."""
    from converter.writing.whole_file import whole_file

    with whole_file(output.with_suffix(_SUFFIX)) as file:
        file.write(_text(plan, output).encode(errors="surrogateescape"))


def ollama_command(output: Path) -> str:
    """The command that makes of it a model of Ollama's."""
    return as_typed(("ollama", "create", "NAME", "-f", str(output.with_suffix(_SUFFIX))))


def _text(plan: "ConversionPlan", output: Path) -> str:
    names = _TEXT.format(model=output.name, modelfile=output.with_suffix(_SUFFIX).name)
    return names + "".join(f"{line}\n" for line in _defaults(plan))


def _defaults(plan: "ConversionPlan") -> Iterator[str]:
    """What the model does by itself, and Ollama wouldn't."""
    from converter.derive.chat_defaults import default_system, sampling

    system = default_system(_chat_template(plan))
    if system:
        yield f'SYSTEM """{system}"""'
    for name, value in sampling(plan.base).items():
        yield f"PARAMETER {_PARAMETERS.get(name, name)} {value:g}"


def _chat_template(plan: "ConversionPlan") -> str:
    """The one that the model is written with; empty where it has none."""
    from converter.derive.vocabulary import TEMPLATE_KEY
    from converter.planning.conversion_plan import CopiedKeyValue, NewKeyValue

    for entry in plan.files[0].key_values:
        if entry.key == TEMPLATE_KEY:
            match entry:
                case CopiedKeyValue():
                    return str(entry.entry.value)
                case NewKeyValue():
                    return str(entry.value)
    return ""
