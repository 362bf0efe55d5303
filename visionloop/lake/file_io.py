"""How Iceberg reads and writes a lake's files: pyiceberg's own way, with patience that ends."""

from __future__ import annotations

from datetime import timedelta

from pyarrow.fs import FileSystem
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.utils.datetime import millis_to_datetime

from visionloop import environment


class LakeFileIO(PyArrowFileIO):
    """`PyArrowFileIO` that gives up on a bucket that does not answer.

    Arrow's own limit is a quarter of an hour for each request, and pyiceberg has no property for
    it.
    """

    def _initialize_gcs_fs(self) -> FileSystem:
        from urllib.parse import urlsplit

        from pyarrow.fs import GcsFileSystem

        held = self.properties
        service = urlsplit(held.get("gcs.service.host", ""))
        expires = held.get("gcs.oauth2.token-expires-at")
        return GcsFileSystem(
            access_token=held.get("gcs.oauth2.token"),
            credential_token_expiration=millis_to_datetime(int(expires)) if expires else None,
            default_bucket_location=held.get("gcs.default-bucket-location", "US"),
            scheme=service.scheme or None,
            endpoint_override=service.netloc or None,
            retry_time_limit=timedelta(seconds=environment.storage_timeout()),
        )
