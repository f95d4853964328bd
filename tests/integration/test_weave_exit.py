"""The interpreter's exit: what a weave keeps it waiting for, and what it does not."""

import time
from pathlib import Path

import pytest

from tests.support.programs import run_program

PROMPT = 5.0


@pytest.mark.parametrize("options", ["timeout=0.05", "timeout=0.05, retries=2"])
@pytest.mark.parametrize("source", ["", "range(5), "])
def test_a_timed_out_synchronous_task_keeps_neither_the_weave_nor_the_exit_waiting(
    source: str, options: str, tmp_path: Path
) -> None:
    began = time.monotonic()
    ended = run_program(
        f"""
        import threading
        from wove import weave

        with weave() as w:
            @w.do({source}{options})
            def stuck({"number" if source else ""}):
                threading.Event().wait(60)

        print(type(w.result.exception).__name__)
        """,
        tmp_path,
    )
    assert time.monotonic() - began < PROMPT
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "TaskTimeoutError\n", "")


def test_a_task_that_was_given_up_keeps_the_exit_not_waiting(tmp_path: Path) -> None:
    began = time.monotonic()
    ended = run_program(
        """
        import threading
        from wove import weave

        with weave() as w:
            @w.do
            def stuck():
                threading.Event().wait(60)

            @w.do
            async def fails():
                raise LookupError

        print(w.result.cancelled, repr(w.result.exception))
        """,
        tmp_path,
    )
    assert time.monotonic() - began < PROMPT
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "{'stuck'} LookupError()\n", "")


def test_a_failed_weave_with_threads_in_the_middle_of_work_exits_quietly(tmp_path: Path) -> None:
    ended = run_program(
        """
        import time
        from wove import weave

        with weave() as w:
            @w.do(range(100), timeout=0.01)
            def busy(number):
                for _ in range(100):
                    time.sleep(0.001)

            @w.do(range(1000))
            def drained(number):
                time.sleep(0.001)

        assert w.result.exception is not None
        """,
        tmp_path,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_exit_waits_for_a_background_weave_and_its_on_done(tmp_path: Path) -> None:
    ended = run_program(
        """
        import asyncio
        from wove import weave

        async def on_done(result):
            await asyncio.sleep(0.05)
            print("done", list(result), flush=True)

        with weave(background=True, on_done=on_done) as w:
            @w.do
            async def first():
                await asyncio.sleep(0.3)
                return 1

            @w.do
            async def second(first):
                # A loop needs its default executor already to look up a host name.
                return await asyncio.to_thread(lambda: first + 1)

        print("main ends")
        """,
        tmp_path,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "main ends\ndone [1, 2]\n", "")


def test_a_background_weave_that_needs_a_thread_while_the_interpreter_exits_is_done_one_way_or_another(
    tmp_path: Path,
) -> None:
    ended = run_program(
        """
        import asyncio, sys
        from wove import weave

        def on_done(result):
            # Python 3.12.0 and 3.12.1 start no thread any more once the main thread has ended.
            if sys.version_info[:3] in ((3, 12, 0), (3, 12, 1)):
                assert "can't create new thread" in str(result.exception), result
            else:
                assert list(result) == [None, 5], result
            print("done", flush=True)

        with weave(background=True, on_done=on_done) as w:
            @w.do
            async def first():
                await asyncio.sleep(0.3)

            @w.do
            def second(first):
                return 5
        """,
        tmp_path,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_a_failure_of_a_background_weave_that_nobody_reads_is_reported_at_the_exit(tmp_path: Path) -> None:
    ended = run_program(
        """
        from wove import weave

        def start():
            with weave(background=True) as w:
                @w.do
                def fails():
                    raise LookupError("nobody reads this")

        start()
        """,
        tmp_path,
    )
    assert ended.returncode == 0
    assert "LookupError: nobody reads this" in ended.stderr
    assert "fails: failed (LookupError)" in ended.stderr


def test_a_program_that_runs_many_weaves_exits_without_a_warning(tmp_path: Path) -> None:
    ended = run_program(
        """
        import asyncio
        from wove import merge, weave

        def block():
            with weave() as w:
                w.do(lambda: merge(len, ["a", "bb"]))
                w.do([1, 2])(lambda number: asyncio.sleep(0, number))
                w.do(lambda: 1 / 0)
            assert w.result.exception is not None

        async def main():
            async with weave() as w:
                w.do(lambda: block())
            block()
            assert w.result.exception is None

        for _ in range(20):
            block()
        asyncio.run(main())
        """,
        tmp_path,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_process_that_forks_in_the_middle_of_a_weave_leaves_a_child_that_can_weave(tmp_path: Path) -> None:
    ended = run_program(
        """
        import os, sys, warnings
        from wove import weave

        # Python 3.12 warns of every fork of a process with threads.
        warnings.simplefilter("ignore", DeprecationWarning)

        def child():
            with weave() as w:
                w.do(range(3))(abs)
            return list(w.result.abs) == [0, 1, 2]

        with weave() as w:
            @w.do
            def forks():
                process = os.fork()
                if process == 0:
                    os._exit(0 if child() else 1)
                return os.waitpid(process, 0)[1]

        print(w.result.forks)
        """,
        tmp_path,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")
