"""Whatever the package raises can cross to another process."""

import pytest

from tests.support.exceptions import assert_survives, exceptions_of, modules_of


@pytest.mark.parametrize("module", modules_of("wove_k8s"))
def test_the_exceptions_of_a_module_survive_pickling(module: str) -> None:
    for cls in exceptions_of(module):
        assert_survives(cls)
