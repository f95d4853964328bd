"""Names that Kubernetes takes, from names that it does not."""

import hashlib
import re

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LONGEST_PREFIX = 20
# A pod's name is the Job's and six characters, and becomes its host name, which ends at 63.
_LONGEST_JOB_NAME = 57
_DIGEST = 20


def job_name(prefix: str, task: str, identity: str) -> str:
    """Return the name of a Job: always the same one for the same identity, so that it cannot be created twice.

    Args:
        prefix: how it begins.
        task: the task's name, for whoever lists Jobs. It may contain anything, and is cut.
        identity: what makes it unique: a run id, or an idempotency key.
    """
    digest = hashlib.sha256(identity.encode()).hexdigest()[:_DIGEST]
    room = _LONGEST_JOB_NAME - len(prefix) - _DIGEST - 2
    slug = re.sub(r"[^a-z0-9]+", "-", task.lower().encode("ascii", "ignore").decode())[:room].strip("-")
    return "-".join(part for part in (prefix, slug, digest) if part)
