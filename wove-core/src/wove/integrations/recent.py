"""What an adapter has submitted lately, for backends that would execute a payload twice that is submitted twice."""

from collections import OrderedDict
from typing import Any

# What is sent once more because the answer was lost asks the weave so much later. A worker that has begun the first
# copy without asking, which takes it a moment to say, has told the weave by then.
SECOND_COPY_SECONDS = 1.0


class RecentSubmissions:
    """The handles of the latest submissions by run id. Belongs to one loop.

    Args:
        most: how many are remembered; run ids are never used again, so older ones matter no more.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._handles: OrderedDict[str, Any] = OrderedDict()

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._handles

    def __getitem__(self, run_id: str) -> Any:
        return self._handles[run_id]

    def add(self, run_id: str, handle: Any) -> None:
        """Remember a submission that the backend has taken."""
        self._handles[run_id] = handle
        if len(self._handles) > self._most:
            self._handles.popitem(last=False)
