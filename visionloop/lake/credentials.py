"""Whether this machine can show Google who asks."""

from __future__ import annotations

import functools


@functools.cache
def has_google_credentials() -> bool:
    """Return whether credentials for Google are found, as its libraries look for them."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError:
        return False
    return True
