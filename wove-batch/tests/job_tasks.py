"""Tasks that die in their jobs, which import them from here."""

import os
import time


def eat_memory(mebibytes: int) -> None:
    """Take memory, and wait for what comes of it."""
    eaten = bytearray(mebibytes << 20)
    eaten[::4096] = b"x" * len(eaten[::4096])
    time.sleep(60)


def shout_and_leave(words: str, code: int) -> None:
    """Print, and end the process without a word to anybody else."""
    print(words, flush=True)
    os._exit(code)
