"""``python -m wove_batch.worker``: what a job runs whose payload is in S3.

Reads the payload with the credentials of the job's role and executes it as ``python -m wove.backend_worker`` does.
Where it is stands in the variable ``WOVE_BATCH_PAYLOAD``; see `wove_batch.reference`. An element of an array job finds
its own by ``AWS_BATCH_JOB_ARRAY_INDEX``.

Exit codes: those of ``wove.backend_worker``; and 66, the payload has been removed, because nobody waits for the task
any more; 69, it cannot be read; 76, it is not what was submitted.
"""

import hmac
import io
import json
import os
import sys
from collections.abc import MutableMapping

from wove.backend_worker import EXIT_NOT_CONFIGURED, EXIT_USAGE, main
from wove.errors import ConfigurationError, DeliveryError, SignatureError
from wove_batch.credentials import find_credentials
from wove_batch.reference import REFERENCE_VARIABLE, digest_of, read_reference
from wove_batch.s3 import NotThere, read_range

# The codes of sysexits.h.
EXIT_NO_INPUT = 66
EXIT_UNAVAILABLE = 69
EXIT_PROTOCOL = 76


def fetch_payload(environ: MutableMapping[str, str]) -> str:
    """Return the payload of this job, JSON. What says where it is, is taken out of the environment.

    Raises:
        ValueError: nothing says where it is.
        NotThere: it has been removed.
        DeliveryError: it cannot be read.
        SignatureError: it is not what was submitted.
        ConfigurationError: this job has no credentials.
    """
    reference = read_reference(environ.pop(REFERENCE_VARIABLE, ""))
    credentials = find_credentials(environ)

    def read(start: int, size: int, digest: str) -> bytes:
        body = read_range(reference["url"], start, size, region=reference["region"], credentials=credentials)
        # Who may write into the bucket must not decide what a job executes.
        if not hmac.compare_digest(digest_of(body), digest):
            raise SignatureError("The payload of this job is not what was submitted: somebody has changed it in S3.")
        return body

    head = read(0, reference["size"], reference["digest"])
    if not reference.get("array"):
        return head.decode()
    start, size, digest = json.loads(head)[int(environ["AWS_BATCH_JOB_ARRAY_INDEX"])]
    return read(reference["size"] + start, size, digest).decode()


def _run() -> int:
    try:
        payload = fetch_payload(os.environ)
    except NotThere as error:
        return _complain(EXIT_NO_INPUT, f"{error}. The payload has been removed: nobody waits for the task any more.")
    except SignatureError as error:
        return _complain(EXIT_PROTOCOL, error)
    except ConfigurationError as error:
        return _complain(EXIT_NOT_CONFIGURED, error)
    except (DeliveryError, OSError) as error:
        return _complain(EXIT_UNAVAILABLE, error)
    except ValueError as error:
        return _complain(EXIT_USAGE, error)
    # Not through the environment, where child processes would see it.
    sys.stdin = io.StringIO(payload)
    return main(["--stdin"])


def _complain(code: int, error: object) -> int:
    print(f"wove_batch.worker: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(_run())
