"""Why no worker of a cluster can take a task. Dask lets such a task wait without a word."""

from collections.abc import Collection, Mapping
from typing import Any

# More are not listed in a message.
_MOST = 5


def why_waiting(workers: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any], *, where: str) -> str | None:
    """Return why none of a cluster's workers can take a task, and the next step; None where one can.

    Args:
        workers: by address, as ``Scheduler.identity`` describes them.
        options: those of ``Client.submit``.
        where: names the scheduler.
    """
    if not workers:
        return f"the Dask cluster at {where} has no worker. Start one: dask worker {where}"
    named: Collection[str] = options.get("workers") or ()
    there = {address: each for address, each in workers.items() if not named or _is_named(address, each, named)}
    if not there and options.get("allow_other_workers"):
        there = dict(workers)
    if not there:
        names = [str(each.get("name")) for each in workers.values()]
        return (
            f"submit_options['workers'] is {_listed(named)}, and no worker of the Dask cluster at {where} is called so "
            f"or listens there. There are: {_listed(names)}"
        )
    wanted: Mapping[str, float] = options.get("resources") or {}
    if any(_offers(each, wanted) for each in there.values()):
        return None
    offered = sorted({_described(each.get("resources") or {}) for each in there.values()})
    return (
        f"submit_options['resources'] asks for {_described(wanted)}, which no worker of the Dask cluster at {where} "
        f"offers; they have {' or '.join(offered[:_MOST])}. Start one that does: dask worker {where} --resources "
        f'"{" ".join(f"{name}={amount:g}" for name, amount in wanted.items())}"'
    )


def _is_named(address: str, worker: Mapping[str, Any], named: Collection[str]) -> bool:
    # An address may be given without its protocol.
    known = {address, address.partition("://")[2], str(worker.get("name")), str(worker.get("host"))}
    return not known.isdisjoint(named)


def _offers(worker: Mapping[str, Any], wanted: Mapping[str, float]) -> bool:
    offered = worker.get("resources") or {}
    return all(offered.get(name, 0) >= amount for name, amount in wanted.items())


def _described(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(resources.items())) or "none"


def _listed(names: Collection[str]) -> str:
    some = sorted(names)[:_MOST]
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(some) + more
