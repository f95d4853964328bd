"""Payloads in S3, where the role of the job reads them: blocking, from any thread."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from wove_batch.reference import Reference, digest_of, directory_of
from wove_batch.service import Service
from wove_batch.settings import Bucket

# https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
_DELETED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Stored:
    """One object.

    Attributes:
        key: in the bucket.
        reference: for the job's overrides.
    """

    key: str
    reference: str


class Payloads:
    """The payloads of one environment."""

    def __init__(self, service: Service, bucket: Bucket) -> None:
        self._service = service
        self._bucket = bucket

    def put(self, name: str, payloads: Sequence[str]) -> Stored:
        """Store the payload of a job, or those of an array job's elements.

        Raises:
            Exception: as `Service.call`.
        """
        bodies = [payload.encode() for payload in payloads]
        if len(bodies) == 1:
            head, whole = bodies[0], bodies[0]
        else:
            head = directory_of(bodies)
            whole = b"".join((head, *bodies))
        key = f"{self._bucket.folder}{name}.json"
        self._service.insist(
            "put_object",
            service="s3",
            Bucket=self._bucket.name,
            Key=key,
            Body=whole,
            ContentType="application/octet-stream",
        )
        url = self._service.url_of(self._bucket.name, key)
        about: Reference = {"url": url, "region": self._service.region, "size": len(head), "digest": digest_of(head)}
        if len(bodies) > 1:
            about["array"] = True
        return Stored(key, json.dumps(about, separators=(",", ":")))

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects, whether they are there or not.

        Raises:
            Exception: as `Service.call`.
        """
        for first in range(0, len(keys), _DELETED_AT_ONCE):
            some = [{"Key": key} for key in keys[first : first + _DELETED_AT_ONCE]]
            about = {"Objects": some, "Quiet": True}
            self._service.insist("delete_objects", service="s3", Bucket=self._bucket.name, Delete=about)
