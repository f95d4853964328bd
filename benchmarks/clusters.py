"""What Wove costs beside the native use of a cluster or workflow system, both with the same workers.

Run it with ``python benchmarks/clusters.py`` in an environment with one or more of the adapters (``--only dask``,
``--rounds N``); it prints a table for each and writes it to ``benchmarks/RESULTS.md``. What is measured stands at the
top of `comparison.py`. Workers import the task from there, so they need `HERE` on their ``PYTHONPATH``.
"""

import sys
from importlib import import_module

from comparison import HERE, Bars, Subject, echo, free_port, run, wait_for_port
from comparison import System as Cluster

__all__ = ["BARS", "HERE", "Bars", "Cluster", "Subject", "echo", "free_port", "main", "wait_for_port"]

BARS = Bars(task=1.1, weave=1.5, throughput=0.9)


def main() -> None:
    run("clusters", "What Wove costs beside the native use of a cluster or workflow system.")


if __name__ == "__main__":
    # Those who are measured import this module, which must not exist twice.
    sys.path.insert(0, str(HERE))
    import_module("clusters").main()
