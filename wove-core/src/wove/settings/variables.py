"""Settings from environment variables: ``WOVE_`` and the name of a setting in capitals."""

from collections.abc import Iterator, Mapping

from wove.errors import OptionError
from wove.options import Option

PREFIX = "WOVE_"
CONFIG_FILE = "WOVE_CONFIG_FILE"
_NONE = ("none", "null")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def variable(setting: str) -> str:
    """Return the name of the variable for a setting."""
    return PREFIX + setting.upper()


def read_variables(environ: Mapping[str, str], options: Mapping[str, Option]) -> Iterator[tuple[str, object]]:
    """Yield name and value of each setting that a variable holds. An empty variable counts as unset.

    Args:
        environ: ``os.environ``.
        options: what may be set beside ``default_environment``.

    Raises:
        OptionError: the option does not take the variable's value.
    """
    default = environ.get(variable("default_environment"), "").strip()
    if default:
        yield "default_environment", None if default.lower() in _NONE else default
    for name, option in options.items():
        text = environ.get(variable(name), "").strip()
        if text:
            yield name, _parse(text, option, name)


def _parse(text: str, option: Option, name: str) -> object:
    if text.lower() in _NONE:
        return None
    for reading in _readings(text):
        if option.accepts(reading):
            return reading
    raise OptionError(f"environment variable {variable(name)}: {name} must be {option.expected}, not {text!r}.")


def _readings(text: str) -> Iterator[object]:
    """Yield everything that a text can mean; the option chooses."""
    if text.lower() in (*_TRUE, *_FALSE):
        yield text.lower() in _TRUE
    for number in (int, float):
        try:
            yield number(text)
        except ValueError:
            pass
    yield text


def misspelled_variables(environ: Mapping[str, str], options: Mapping[str, Option]) -> dict[str, str]:
    """Return the variables that are almost certainly misspelled, each with the one that was meant.

    Names that are not that near are the user's own business: Wove does not own its prefix.
    """
    known = [CONFIG_FILE, variable("default_environment"), *map(variable, options)]
    unknown = [name for name in environ if name.startswith(PREFIX) and name not in known]
    if not unknown:
        return {}
    from wove.settings.discovery import near_miss

    meant = {
        name: near_miss(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known]) for name in unknown
    }
    return {name: PREFIX + nearest for name, nearest in meant.items() if nearest}
