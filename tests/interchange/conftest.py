"""A bucket that tests of sets share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import storage_emulator


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Return the address of an empty bucket."""
    with storage_emulator() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        storage.Client("emulated", credentials=AnonymousCredentials()).create_bucket("sets")
        yield "gs://sets"
