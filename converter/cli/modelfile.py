"""``--modelfile``: what Ollama reads, beside the model.

https://docs.ollama.com/modelfile
"""

import shlex
from pathlib import Path
from typing import Final

from converter.errors import ConverterError

_SUFFIX: Final = ".Modelfile"
# Ollama makes its own TEMPLATE of the chat templates that it knows (template/ in its sources), else none.
_TEXT: Final = """\
# ollama create NAME -f {modelfile}
# Where `ollama show --template NAME` says {{{{ .Prompt }}}}, it doesn't know the model's chat template: add TEMPLATE.
FROM ./{model}
"""


def check_modelfile(output: Path) -> None:
    """Raise ConverterError, before anything is written, where the model's Modelfile couldn't be."""
    from converter.writing.outputs import refuse_other_text

    if output.suffix == _SUFFIX:
        raise ConverterError(f"{output}: is the Modelfile's own name; give the model another with -o, such as x.gguf")
    if not output.name.isprintable():
        raise ConverterError(f"{output}: can't be named in a Modelfile; give the model another name with -o")
    refuse_other_text(output.with_suffix(_SUFFIX), _text(output))


def write_modelfile(output: Path) -> None:
    """Write it beside the model."""
    from converter.writing.whole_file import whole_file

    with whole_file(output.with_suffix(_SUFFIX)) as file:
        file.write(_text(output).encode(errors="surrogateescape"))


def ollama_command(output: Path) -> str:
    """The command that makes of it a model of Ollama's."""
    return shlex.join(("ollama", "create", "NAME", "-f", str(output.with_suffix(_SUFFIX))))


def _text(output: Path) -> str:
    return _TEXT.format(model=output.name, modelfile=output.with_suffix(_SUFFIX).name)
