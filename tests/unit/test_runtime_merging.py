"""Properties of merging: only the order of what was said counts, not who said it or in how many pieces."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wove.settings.configuration import configuration_of
from wove.settings.definitions import read_layer
from wove.settings.layers import NOTHING, Merged, merge

VALUES = st.none() | st.integers(0, 3)
DEFINITIONS = st.fixed_dictionaries(
    {},
    optional={
        "executor": st.none() | st.sampled_from(["local", "rq", "celery"]),
        "executor_config": st.none() | st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3),
        "retries": VALUES,
        "debug": st.none() | st.booleans(),
    },
)
ENVIRONMENTS = st.none() | st.dictionaries(st.sampled_from(["a", "b", "default"]), st.none() | DEFINITIONS, max_size=3)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "default_environment": st.none() | st.sampled_from(["a", "b"]),
        "environments": ENVIRONMENTS,
        "retries": VALUES,
        "timeout": st.none() | st.floats(0.5, 2),
    },
)
Said = Mapping[str, Any]


def merged(said: Sequence[Said], below: Merged = NOTHING) -> Merged:
    for count, settings in enumerate(said):
        below = merge(below, read_layer(settings, f"place {count}"))
    return below


def has_none(value: object) -> bool:
    return value is None or (isinstance(value, Mapping) and any(map(has_none, value.values())))


@given(st.lists(SETTINGS, max_size=5), st.data())
def test_it_does_not_matter_how_many_were_merged_before(said: list[Said], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(said)))
    whole, parts = merged(said), merged(said[cut:], merged(said[:cut]))
    assert (parts.values, parts.environments) == (whole.values, whole.environments)


@given(st.lists(SETTINGS, max_size=4))
def test_no_none_is_left(said: list[Said]) -> None:
    found = merged(said)
    assert not has_none(found.values)
    assert not has_none(found.environments)


@given(st.lists(SETTINGS, max_size=3), SETTINGS)
def test_saying_the_same_twice_in_a_row_is_saying_it_once(said: list[Said], last: Said) -> None:
    once, twice = merged([*said, last]), merged([*said, last, last])
    assert (twice.values, twice.environments) == (once.values, once.environments)


@given(st.lists(SETTINGS, max_size=3), SETTINGS)
def test_the_last_place_that_says_something_decides(said: list[Said], last: Said) -> None:
    found = merged([*said, last])
    for name, value in last.items():
        if name != "environments":
            assert found.values.get(name) == value
    for name, definition in (last.get("environments") or {}).items():
        assert (name in found.environments) == (definition is not None)
        for key, value in (definition or {}).items():
            held = found.environments[name].get(key)
            if isinstance(value, dict):
                assert isinstance(held, Mapping)
                assert {k: held.get(k) for k in value} == value
            else:
                assert held == value


@given(st.lists(SETTINGS, max_size=3), SETTINGS)
def test_what_the_last_place_does_not_mention_stays(said: list[Said], last: Said) -> None:
    before, after = merged(said), merged([*said, last])
    assert {k: v for k, v in before.values.items() if k not in last} == {
        k: v for k, v in after.values.items() if k not in last
    }
    mentioned = last.get("environments", {})
    if mentioned is not None:
        assert {k: v for k, v in before.environments.items() if k not in mentioned} == {
            k: v for k, v in after.environments.items() if k not in mentioned
        }


@given(st.lists(SETTINGS, max_size=3), st.sampled_from(["a", "b"]), DEFINITIONS)
def test_an_environment_that_was_removed_knows_nothing_of_its_past(said: list[Said], name: str, new: Said) -> None:
    again: list[Said] = [{"environments": {name: None}}, {"environments": {name: new}}]
    assert merged([*said, *again]).environments[name] == merged(again).environments[name]


@given(st.lists(SETTINGS, max_size=3), st.dictionaries(st.sampled_from("xyz"), st.integers(), max_size=2))
def test_an_executor_is_told_nothing_that_was_meant_for_another(said: list[Said], told: dict[str, int]) -> None:
    moves: list[Said] = [
        {"environments": {"a": {"executor": "rq"}}},
        {"environments": {"a": {"executor": "stdio", "executor_config": told}}},
    ]
    assert merged([*said, *moves]).environments["a"]["executor_config"] == told


@given(st.lists(SETTINGS, max_size=3))
def test_the_environment_default_always_exists(said: list[Said]) -> None:
    named: Said = {"environments": {"a": {"executor": "rq"}, "b": {"executor": "rq"}, "default": {"executor": "rq"}}}
    found = configuration_of(merged([*said, named, {"environments": None}]))
    assert list(found.definitions) == ["default"]
    assert found.environment("default").is_local
