"""Puts pretrained weights into an image while it is built, each checked by its SHA-256.

A loop names them by their path: ``embedding: {weights: /opt/visionloop/weights/NAME}``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

from visionloop.errors import InputError
from visionloop.inference.weights import read_weights

SETTING = "the build argument WEIGHTS"
CERTIFICATES = Path("/run/secrets/ca.pem")
GOOGLE_KEY = Path("/run/secrets/gcloud.json")


def main() -> int:
    """Bake what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--context", type=Path, required=True, help="folder of relative paths")
    parser.add_argument("--into", type=Path, required=True, help="folder that gets the files")
    parser.add_argument("weights", nargs="*", metavar="FILE#sha256=HEX")
    args = parser.parse_args()
    args.into.mkdir(parents=True, exist_ok=True)
    # google-cloud-storage finds its key, and every client the certificates, by these.
    if GOOGLE_KEY.exists():
        os.environ.setdefault("GOOGLE_APPLICATION_CREDENTIALS", str(GOOGLE_KEY))
    if CERTIFICATES.exists():
        os.environ.setdefault("REQUESTS_CA_BUNDLE", str(CERTIFICATES))
    try:
        for named in args.weights:
            print(bake(named, context=args.context, into=args.into))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def bake(named: str, *, context: Path, into: Path) -> Path:
    """Copy one file of weights into a folder.

    Args:
        named: ``FILE#sha256=HEX``: a path, or an https://, gs:// or file:// address.
        context: Folder that a relative path starts from.
        into: The folder.

    Returns:
        The file that was written.

    Raises:
        InputError: The digest is missing or another one, two files have one name, or the weights
            cannot be read.
    """
    uri, _, digest = named.partition("#sha256=")
    if len(digest) != 64:
        raise InputError(
            "weights are baked into an image only with their checksum",
            where=f"{SETTING}: {named}",
            remedy="Write FILE#sha256=HEX, with the digest that `sha256sum FILE` prints",
        )
    target = into / uri.rpartition("/")[2]
    if target.exists():
        raise InputError(
            f"two files would be {target.name}", where=f"{SETTING}: {named}", remedy="Rename one"
        )
    data = read(uri, context=context)
    found = hashlib.sha256(data).hexdigest()
    if found != digest.lower():
        raise InputError(
            f"the file's SHA-256 is {found}",
            where=f"{SETTING}: {named}",
            remedy="Check that it is the file that was meant, then name its digest",
        )
    target.write_bytes(data)
    target.chmod(0o644)
    return target


def read(uri: str, *, context: Path) -> bytes:
    """Return the bytes at a path or an address.

    Raises:
        InputError: They cannot be read.
    """
    if not uri.startswith(("http://", "https://")):
        return read_weights(uri if "://" in uri else str(context / uri), setting=SETTING)
    cafile = str(CERTIFICATES) if CERTIFICATES.exists() else None
    try:
        context_of_tls = ssl.create_default_context(cafile=cafile)
        with urllib.request.urlopen(uri, timeout=60, context=context_of_tls) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, OSError) as error:
        raise InputError(
            f"the weights cannot be downloaded: {error}",
            where=f"{SETTING}: {uri}",
            remedy="Check the address, or put the file into the folder weights/ and name that path",
        ) from error


if __name__ == "__main__":
    sys.exit(main())
