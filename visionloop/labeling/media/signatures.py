"""Links to images of a lake that are valid for a while, and for one image each.

A link is ``<address>/media/<sample_id>?expires=<seconds since 1970>&signature=<hexadecimal>``. The
signature is an HMAC-SHA256 of the sample and the time, by a key that `visionloop labels media` and
the tasks share: ``VISIONLOOP_MEDIA_KEY``. Whoever has a link can see that image, until it expires;
nobody can make another link of it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from visionloop import environment
from visionloop.errors import InputError

VARIABLE = "VISIONLOOP_MEDIA_KEY"
SHORTEST = 16
_PATH = re.compile(r"(?:/[^/]+)*/media/([0-9a-f]{64})")
# Nobody wrote a link for later: the year 2286.
_LONGEST = 10
_REMEDY = (
    "Make one with `openssl rand -hex 32`, and give it to `visionloop labels media` and to the "
    "tasks alike: by environment, or as a key of the Secret `visionloop`"
)


@dataclass(frozen=True)
class Keys:
    """Keys of links.

    Attributes:
        held: The first signs, each verifies: a new one can be put before the old one.
    """

    held: tuple[bytes, ...]

    @classmethod
    def of_environment(cls) -> Keys:
        """Return those of this process.

        Raises:
            InputError: There is none, or one is short enough to be guessed.
        """
        given = environment.media_keys()
        if not given:
            raise InputError(
                "no key is there to sign links to images with", where=VARIABLE, remedy=_REMEDY
            )
        if any(len(key) < SHORTEST for key in given):
            raise InputError(
                f"the key of links to images has fewer than {SHORTEST} characters",
                where=VARIABLE,
                remedy=_REMEDY,
            )
        return cls(tuple(key.encode() for key in given))

    def link(self, address: str, sample_id: str, expires: int) -> str:
        """Return a link.

        Args:
            address: Of the media endpoint.
            sample_id: The image.
            expires: Seconds since 1970, until which it is valid.
        """
        signature = _sign(self.held[0], sample_id, expires)
        place = f"{address.rstrip('/')}/media/{sample_id}"
        return f"{place}?expires={expires}&signature={signature}"

    def refusal(self, sample_id: str, query: str, now: float) -> str:
        """Return what is wrong with a link: ``unsigned``, ``forged`` or ``expired``; else nothing.

        How long it takes tells nothing of the right signature.

        Args:
            sample_id: The image that it is for.
            query: What follows its question mark.
            now: Seconds since 1970.
        """
        try:
            values = parse_qs(query, max_num_fields=8, errors="strict")
        except ValueError:
            return "unsigned"
        (expires, signature) = (values.get(name, []) for name in ("expires", "signature"))
        if len(expires) != 1 or len(signature) != 1:
            return "unsigned"
        if not re.fullmatch(rf"[1-9][0-9]{{0,{_LONGEST - 1}}}", expires[0], re.ASCII):
            return "unsigned"
        given = signature[0].encode()
        wanted = [_sign(key, sample_id, int(expires[0])).encode() for key in self.held]
        if not any([hmac.compare_digest(given, one) for one in wanted]):
            return "forged"
        return "expired" if int(expires[0]) < now else ""


def sample_of(path: str) -> str:
    """Return the sample that a link's path names, empty where it names none.

    What stands before ``/media/`` is a proxy's business.
    """
    found = _PATH.fullmatch(path)
    return found[1] if found else ""


def _sign(key: bytes, sample_id: str, expires: int) -> str:
    text = f"visionloop media 1\n{sample_id}\n{expires}".encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()
