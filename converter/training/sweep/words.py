"""Numbers and settings as people read them; the terminal, the report and the plots use the same."""

from converter.report.sizes import size_text
from converter.training.sweep.results import Deployable
from converter.training.sweep.space import Values


def setting_words(values: Values) -> str:
    """A setting without its seed."""
    return f"head {values.head}, {other_words(values)}"


def other_words(values: Values) -> str:
    """A setting without its head and its seed."""
    scale = f"alpha {values.alpha_over_r * values.r:g}" + (" with rsLoRA" if values.use_rslora else "")
    biases = "" if values.bias == "none" else f", bias {values.bias}"
    biases += ", lora_bias" if values.lora_bias else ""
    return f"r {values.r}, {scale}, dropout {values.lora_dropout:g}{biases}, learning rate {values.learning_rate:g}"


def loss_words(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}"


def share_words(share: float | None) -> str:
    """A share as a change in percent."""
    return "" if share is None else f"{100 * share:+.1f} %"


def nbytes_words(nbytes: int | None) -> str:
    return "unknown size" if nbytes is None else size_text(nbytes)


def deployed_words(way: Deployable) -> str:
    """What has to be served."""
    match way.kind:
        case "lora":
            return f"a LoRA of {nbytes_words(way.nbytes)} that is swapped at run time"
        case "model":
            return f"a merged model of its own ({nbytes_words(way.nbytes)})"
        case "untie-lora":
            return f"a LoRA on an untied base ({nbytes_words(way.nbytes)} together)"
        case "untie-model":
            return f"an untied model of its own ({nbytes_words(way.nbytes)})"
