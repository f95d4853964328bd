"""``python -m wove.backend_worker``: executes one payload, for backends that start a process for each job.

The payload (base64 of JSON, as `payload_to_b64` makes it, or the JSON itself) comes from the environment variable
``WOVE_BACKEND_PAYLOAD``, from the file that ``WOVE_BACKEND_PAYLOAD_FILE`` names, from the first argument, or with
``--stdin`` from standard input.

Exit codes: 0, the weave knows the outcome (also that of a failed task) or does not want it; 64, there is no usable
payload; 75, the outcome could not be delivered; 77, the payload's signature is missing or wrong; 78, this host's
configuration is incomplete.
"""

import gc
import json
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, TextIO

PAYLOAD_VARIABLE = "WOVE_BACKEND_PAYLOAD"
FILE_VARIABLE = "WOVE_BACKEND_PAYLOAD_FILE"

# The codes of sysexits.h.
EXIT_USAGE = 64
EXIT_NOT_DELIVERED = 75
EXIT_NOT_ALLOWED = 77
EXIT_NOT_CONFIGURED = 78

_USAGE = (
    f"Give the payload in {PAYLOAD_VARIABLE}, in a file that {FILE_VARIABLE} names, as the first argument, or with "
    "--stdin on standard input."
)


def read_payload(arguments: Sequence[str], environ: MutableMapping[str, str], stdin: TextIO) -> Mapping[str, Any]:
    """Return the payload of this process. It is taken out of the environment, where child processes would see its key.

    Args:
        arguments: the command line without the program.
        environ: the environment.
        stdin: standard input; read only with ``--stdin``.

    Raises:
        ValueError: there is none, or it is malformed.
    """
    from wove.backend.payload import payload_from_b64

    given, file = environ.pop(PAYLOAD_VARIABLE, ""), environ.pop(FILE_VARIABLE, "")
    if "--stdin" in arguments:
        given = stdin.read()
    elif arguments:
        given = arguments[0]
    elif file and not given:
        given = _read_file(file)
    given = given.strip()
    if not given:
        raise ValueError(f"There is no payload. {_USAGE}")
    if given.startswith("-"):
        raise ValueError(f"There is no option {given.split()[0]!r}. {_USAGE}")
    if not given.startswith("{"):
        return payload_from_b64(given)
    try:
        payload: Mapping[str, Any] = json.loads(given)
    except ValueError as error:
        raise ValueError(f"The payload is no valid JSON ({error}): was it cut off, or changed by a shell?") from None
    return payload


def _read_file(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The payload's file, which {FILE_VARIABLE} names, cannot be read: {error}") from None


def main(arguments: Sequence[str]) -> int:
    """Execute the payload of this process and return the exit code."""
    # Nothing that loading makes is garbage, and looking for some takes a tenth of the time.
    gc.disable()
    from wove.errors import ConfigurationError, DeliveryError, SignatureError

    try:
        payload = read_payload(arguments, os.environ, sys.stdin)
    except ValueError as error:
        return _complain(EXIT_USAGE, error)
    from wove.integrations.worker import run

    gc.enable()
    try:
        run(payload)
    except DeliveryError as error:
        return _complain(EXIT_NOT_DELIVERED, error)
    except SignatureError as error:
        return _complain(EXIT_NOT_ALLOWED, error)
    except ConfigurationError as error:
        return _complain(EXIT_NOT_CONFIGURED, error)
    except ValueError as error:
        return _complain(EXIT_USAGE, error)
    return 0


def _complain(code: int, error: BaseException) -> int:
    print(f"wove.backend_worker: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
