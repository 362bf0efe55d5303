"""Errors that tell a person what is wrong, where, and what to do about it."""

from __future__ import annotations

from visionloop.redaction import redacted


class VisionloopError(Exception):
    """The work failed. Exit status 1.

    Whatever is secret in its words is replaced by ``***``, see `visionloop.redaction`.

    Args:
        what: One sentence that names the problem.
        where: The file, field, table, task or address that it was met at.
        remedy: One sentence that says what to do.
    """

    exit_status = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = map(redacted, (what, where, remedy))
        super().__init__(self.what)

    def __str__(self) -> str:
        """Return the one paragraph that is shown to a person."""
        parts = [self.what.rstrip(".") + (f" ({self.where})." if self.where else ".")]
        if self.remedy:
            parts.append(self.remedy.rstrip(".") + ".")
        return " ".join(parts)


class InputError(VisionloopError):
    """The input or the configuration is wrong. Exit status 2."""

    exit_status = 2


class StaleRead(VisionloopError):
    """Another run has written what this one had read; a stage is then run again."""


class UnreadableMedia(VisionloopError):
    """One image or video cannot be decoded; it is counted, never dropped.

    Args:
        reason: A stable machine-readable word, for example ``truncated``.
        detail: The decoder's own words.
        offset: The byte where decoding stopped, None where the decoder does not tell.
    """

    def __init__(self, reason: str, detail: str = "", *, offset: int | None = None) -> None:
        super().__init__(f"unreadable: {reason}" + (f" ({detail})" if detail else ""))
        self.reason = reason
        self.detail = detail
        self.offset = offset
