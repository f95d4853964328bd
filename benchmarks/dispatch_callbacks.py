"""What the way out and back through a backend adapter costs. Run by ``benchmarks/dispatch.py``.

- *fixed cost*: a whole weave with one remote no-op, after the first one; the baseline is the allowed 30 ms.
- *callback path*: a map of no-ops over one worker process, per task: payload, submission, event, result. The queue
  delivers at most once, so its worker begins without asking: one event for each task. By hand: ``http.client`` in
  another process posts as many small JSON bodies to uvicorn, one after the other.
- *burst*: 200 results from 32 worker processes at once, 20 rounds; the cost is one more than the lost results.
"""

import asyncio
import subprocess
import sys
import threading
import time
from functools import cache

import uvicorn
from measure import Case, Job
from pipe_queue import PipeQueueAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import wove
from wove import BackendAdapterEnvironmentExecutor, weave

TASKS = 300
BURST = 200
BURST_WORKERS = 32
ROUNDS = 20
ALLOWED_SECONDS = 0.03

_POSTER = """
import http.client, json, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
body = json.dumps({"type": "task_result", "run_id": "x" * 40, "task_id": "square", "result_pickle": "x" * 40})
def post():
    connection.request("POST", "/", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()
post()
started = time.perf_counter()
for _ in range(int(sys.argv[2])):
    post()
print(time.perf_counter() - started)
"""


def square(number: int) -> int:
    return number * number


@cache
def configured(workers: int) -> None:
    executor = BackendAdapterEnvironmentExecutor("pipe_queue", adapter_class=PipeQueueAdapter)
    queue = {"executor": executor, "executor_config": {"workers": workers}}
    wove.config(default_environment="default", environments={"default": {"executor": "local"}, "queue": queue})
    map_through_queue(workers)


def map_through_queue(items: int) -> list[int]:
    with weave() as w:
        w.do(range(items), environment="queue")(square)
    squares: list[int] = w.result.square
    return squares


def one_weave() -> float:
    configured(1)
    started = time.perf_counter()
    map_through_queue(1)
    return time.perf_counter() - started


def callbacks() -> float:
    configured(1)
    started = time.perf_counter()
    squares = map_through_queue(TASKS)
    took = time.perf_counter() - started
    assert squares == [number * number for number in range(TASKS)]
    return took / TASKS


async def _take(request: Request) -> JSONResponse:
    await request.json()
    return JSONResponse({"cancel": False, "lease": 30})


@cache
def bare_server() -> int:
    """Start uvicorn in a thread, as Wove does, with an app that only reads the event; return its port."""
    app = Starlette(routes=[Route("/", _take, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


def posts_by_hand() -> float:
    command = [sys.executable, "-c", _POSTER, str(bare_server()), str(TASKS)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(printed) / TASKS


def lost_results() -> float:
    configured(BURST_WORKERS)
    lost = 0
    for _ in range(ROUNDS):
        squares = map_through_queue(BURST)
        lost += sum(square != number * number for number, square in enumerate(squares)) + BURST - len(squares)
    return 1.0 + lost


JOBS: dict[str, Job] = {
    "allowed per weave": lambda: ALLOWED_SECONDS,
    "one callback weave": one_weave,
    "posts by hand": posts_by_hand,
    "callbacks": callbacks,
    "none lost": lambda: 1.0,
    "lost in bursts": lost_results,
}

CASES = [
    Case("fixed cost of a callback weave / 30 ms", "allowed per weave", "one callback weave", 1),
    Case("callback path per task / kept-alive POST to uvicorn", "posts by hand", "callbacks", 3, "us"),
    Case("burst of 200 from 32 workers, 20 rounds: 1 + results lost", "none lost", "lost in bursts", 1, "results"),
]
