"""What a command needs beyond the base install."""

from importlib.util import find_spec

from converter.errors import ConverterError, how_to_install


def need_extra(extra: str, *packages: str) -> None:
    """Raise ConverterError, naming the extra to install, where one of its packages is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConverterError(f"{', '.join(missing)} missing; {how_to_install(extra)}")
