"""What it costs to send tasks out of the process and get them back.

Run it with ``python benchmarks/dispatch.py`` (``--rounds N``, ``--only TEXT``); it prints a table and writes it to
``benchmarks/RESULTS.md``. What each row measures stands at the top of the modules that it collects.
"""

import argparse
from pathlib import Path

import dispatch_callbacks
import dispatch_network
import dispatch_stdio
from measure import Job, measure, run_job, table, write_section

HERE = Path(__file__)
JOBS: dict[str, Job] = {**dispatch_callbacks.JOBS, **dispatch_stdio.JOBS, **dispatch_network.JOBS}
CASES = [*dispatch_callbacks.CASES, *dispatch_stdio.CASES, *dispatch_network.CASES]


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs to send tasks out of the process and get them back.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is measured (default: 5)")
    parser.add_argument("--only", default="", help="measure the cases whose name contains this text; writes nothing")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        run_job(JOBS, arguments.job, repeat=3)
        return
    text = table(measure(HERE, [case for case in CASES if arguments.only in case.name], rounds=arguments.rounds))
    print(text)
    if not arguments.only:
        write_section(HERE.with_name("RESULTS.md"), "Dispatch", "python benchmarks/dispatch.py", text)


if __name__ == "__main__":
    main()
