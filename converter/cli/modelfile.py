"""``--modelfile``: what Ollama reads, beside the model.

https://docs.ollama.com/modelfile
"""

from pathlib import Path
from typing import Final

from converter.errors import ConverterError

_SUFFIX: Final = ".Modelfile"


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
        file.write(_text(output).encode())


def _text(output: Path) -> str:
    return f"FROM ./{output.name}\n"
