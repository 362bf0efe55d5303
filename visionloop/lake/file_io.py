"""How Iceberg reads and writes a lake's files.

It is pyiceberg's own way, with patience that ends, and with lists of structs that stay null.
"""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyiceberg.io.pyarrow
from pyarrow.fs import FileSystem
from pyiceberg.io.pyarrow import ArrowProjectionVisitor, PyArrowFileIO
from pyiceberg.types import ListType
from pyiceberg.utils.datetime import millis_to_datetime

from visionloop import environment


class NullListsStay(ArrowProjectionVisitor):
    """`ArrowProjectionVisitor` that leaves a list of structs null.

    pyiceberg 0.12 makes an empty one of it, where it reads and where it writes
    (https://github.com/apache/iceberg-python/issues/3833): what nobody looked for objects in would
    become an image without any.
    """

    def list(
        self, list_type: ListType, list_array: pa.Array | None, value_array: pa.Array | None
    ) -> pa.Array | None:
        """Return a list's column in the schema that is asked for.

        Args:
            list_type: Its type in that schema.
            list_array: The column as it is; None for one that a file lacks.
            value_array: The lists' elements in that schema.
        """
        made = super().list(list_type, list_array, value_array)
        if made is None or list_array is None or made.null_count == list_array.null_count:
            return made
        return pc.if_else(list_array.is_valid(), made, pa.scalar(None, made.type))


# It has no setting for its visitor, which each scan and each file that is written calls by this
# name. This module is loaded with the first table that a catalog of ours opens, before either.
pyiceberg.io.pyarrow.ArrowProjectionVisitor = NullListsStay  # type: ignore[misc]


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
