"""Which configurations are the same."""

import pytest

from wove.environment.fingerprint import fingerprint


class Client:
    """A live object in a configuration; equal to any other one, to prove that equality is not asked."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Client)

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": 1, "b": [1, {"c": None}]}, {"b": [1, {"c": None}], "a": 1}),
        ({"a": {1, 2}}, {"a": {2, 1}}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
    ],
)
def test_equal_plain_values_are_the_same(left: object, right: object) -> None:
    assert fingerprint(left) == fingerprint(right)
    assert hash(fingerprint(left)) == hash(fingerprint(right))


@pytest.mark.parametrize(
    ("left", "right"), [({"a": 1}, {"a": 2}), ({"a": 1}, {"a": True}), ({"a": 1}, {"b": 1}), ({"a": "1"}, {"a": 1})]
)
def test_different_values_are_different(left: object, right: object) -> None:
    assert fingerprint(left) != fingerprint(right)


def test_a_live_object_is_the_same_as_itself_alone() -> None:
    client = Client()
    assert fingerprint({"client": client}) == fingerprint({"client": client})
    assert fingerprint({"client": client}) != fingerprint({"client": Client()})


def test_a_fingerprint_keeps_its_objects_alive() -> None:
    # Otherwise a new object could take over the identity of a dead one.
    kept = fingerprint({"client": Client()})
    assert all(fingerprint({"client": Client()}) != kept for _ in range(100))
