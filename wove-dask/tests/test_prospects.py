"""What a user is told about tasks that no worker can take."""

from typing import Any

import pytest

from wove_dask.prospects import why_waiting

AT = "tcp://scheduler:8786"
WORKERS: dict[str, dict[str, Any]] = {
    "tcp://10.0.0.1:4000": {"name": "worker-1", "host": "10.0.0.1", "resources": {}},
    "tcp://10.0.0.2:4000": {"name": "worker-2", "host": "10.0.0.2", "resources": {"GPU": 2, "MEMORY": 1e9}},
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resources": {"GPU": 2}},
        {"workers": ["worker-1"]},
        {"workers": ["tcp://10.0.0.1:4000"]},
        {"workers": ["10.0.0.1:4000"]},
        {"workers": ["10.0.0.2", "nobody"], "resources": {"GPU": 1}},
        {"workers": ["nobody"], "allow_other_workers": True},
    ],
)
def test_nothing_is_said_while_a_worker_fits(options: dict[str, Any]) -> None:
    assert why_waiting(WORKERS, options, where=AT) is None


@pytest.mark.parametrize(
    ("workers", "options", "said"),
    [
        ({}, {}, f"the Dask cluster at {AT} has no worker. Start one: dask worker {AT}"),
        (WORKERS, {"resources": {"GPU": 3}}, f'dask worker {AT} --resources "GPU=3"'),
        (WORKERS, {"resources": {"TPU": 1}}, "they have GPU 2, MEMORY 1e+09 or none."),
        (WORKERS, {"workers": ["worker-1"], "resources": {"GPU": 1}}, "they have none."),
        (WORKERS, {"workers": ["worker-3"]}, "There are: worker-1, worker-2"),
    ],
)
def test_what_is_missing_is_named_with_the_next_step(
    workers: dict[str, dict[str, Any]], options: dict[str, Any], said: str
) -> None:
    assert said in (why_waiting(workers, options, where=AT) or "")


def test_a_large_cluster_is_not_listed() -> None:
    crowd = {f"tcp://10.0.1.{number}:4000": {"name": f"worker-{number}"} for number in range(100)}
    said = why_waiting(crowd, {"workers": ["nobody"]}, where=AT) or ""
    assert said.endswith("and 95 more")
