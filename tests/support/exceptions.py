"""Finds the exception classes of a package, makes an example of each, and sends it through pickle.

::

    @pytest.mark.parametrize("module", modules_of("wove_celery"))
    def test_the_exceptions_of_a_module_survive_pickling(module: str) -> None:
        for cls in exceptions_of(module):
            assert_survives(cls)
"""

import copy
import importlib
import inspect
import pickle
import pkgutil
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

E = TypeVar("E", bound=BaseException)

# A value for each kind of constructor parameter, by the beginning of its annotation.
_SAMPLES: dict[str, object] = {
    "str": "a text",
    "int": 7,
    "float": 1.5,
    "bool": True,
    "tuple": ((b"a", b"b"),),
    "Any": "anything",
    "collections.abc.Iterable": ("a", "b"),
    "collections.abc.Sequence": ("a", "b"),
    "collections.abc.Mapping": {"kind": "KeyError", "message": "'x'", "nested": {"list": [1]}},
}


def modules_of(package: str) -> list[str]:
    """Return the names of all modules of a package, without importing them."""
    found = importlib.import_module(package)
    below = pkgutil.walk_packages(found.__path__, prefix=f"{package}.")
    return [package, *(each.name for each in below)]


def exceptions_of(module: str) -> list[type[BaseException]]:
    """Return the exception classes that a module defines."""
    found = vars(importlib.import_module(module)).values()
    return [
        each
        for each in found
        if inspect.isclass(each) and issubclass(each, BaseException) and each.__module__ == module
    ]


def example(cls: type[E]) -> E:
    """Return an instance with a value for every parameter of its constructor."""
    if not inspect.isfunction(cls.__init__):
        return cls("a message", 2)
    arguments: list[object] = []
    keywords: dict[str, object] = {}
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[parameter.name] = _value_for(parameter, cls)
        else:
            arguments.append(_value_for(parameter, cls))
    return cls(*arguments, **keywords)


def copies(error: E) -> Iterator[E]:
    """Yield what becomes of an exception by pickling and copying."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(error, protocol))
    yield copy.copy(error)
    yield copy.deepcopy(error)


def assert_survives(cls: type[BaseException]) -> None:
    """Assert that an example of a class keeps message, attributes and notes."""
    error = example(cls)
    error.add_note("task 'report', item 3")
    for found in copies(error):
        assert type(found) is cls
        assert (str(found), found.args) == (str(error), error.args)
        assert vars(found) == vars(error)
        assert found.__notes__ == ["task 'report', item 3"]


def _value_for(parameter: inspect.Parameter, cls: type[BaseException]) -> Any:
    if typing.get_origin(parameter.annotation) is typing.Literal:
        return typing.get_args(parameter.annotation)[-1]
    annotation = inspect.formatannotation(parameter.annotation)
    value = next((value for kind, value in _SAMPLES.items() if annotation.startswith(kind)), None)
    assert value is not None, f"{cls.__name__}({parameter}): add a sample for {annotation}"
    return value
