"""Whatever the package raises can cross to another process."""

import pytest

from tests.support.exceptions import assert_survives, exceptions_of, modules_of
from wove.testing.tasks import Unbuildable


@pytest.mark.parametrize("module", modules_of("wove"))
def test_the_exceptions_of_a_module_survive_pickling(module: str) -> None:
    for cls in exceptions_of(module):
        # That one shows what happens to those that do not.
        if cls is not Unbuildable:
            assert_survives(cls)
