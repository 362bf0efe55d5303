"""Whether a report's numbers are reason enough for a command to fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visionloop.errors import InputError
from visionloop.monitoring.failed_stages import KIND as FAILED
from visionloop.monitoring.kinds import KINDS, SEVERITIES
from visionloop.monitoring.report.data_health import ACT, CANNOT_TELL, LOOK
from visionloop.validation import nearest
from visionloop.words import counted

# A verdict fails with those that are worse.
_VERDICTS = {ACT: (ACT,), LOOK: (ACT, LOOK), CANNOT_TELL: (ACT, LOOK, CANNOT_TELL)}


def check_wanted(wanted: Sequence[str]) -> None:
    """Check what a command shall fail on.

    Args:
        wanted: Kinds of flags, severities (``error``, ``warning``, ``info``) and verdicts (``act``,
            ``look``, ``cannot-tell``).

    Raises:
        InputError: One is none of them.
    """
    known = [*_VERDICTS, *SEVERITIES, *KINDS]
    for one in wanted:
        if one.replace("-", " ") not in known and one not in known:
            raise InputError(
                f"{one!r} is neither a kind of flag, nor a severity, nor a verdict"
                f"{nearest(one, known)}",
                where="--fail-on",
                remedy="Give a kind of flag as docs/monitoring.md lists them; error, warning or "
                "info; or act, look or cannot-tell",
            )


def reasons_to_fail(told: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """Return a sentence for each thing that was not to be.

    A kind of flag that states how things are fails while one stands; a kind that is found of one
    picture or file for good fails in the round that found one. A severity fails with a finding of
    the verdict that is as severe or more so; a verdict with itself and those that are worse.

    Args:
        told: What `visionloop.monitoring.report.summary.summary` returned.
        wanted: See `check_wanted`.
    """
    found = []
    for one in wanted:
        verdict = one.replace("-", " ")
        if verdict in _VERDICTS:
            if told["verdict"] in _VERDICTS[verdict]:
                found.append(f"the verdict is {told['verdict']!r}: {told['because']}")
        elif one in SEVERITIES:
            least = SEVERITIES.index(one)
            grave = [f for f in told["findings"] if SEVERITIES.index(f["severity"]) >= least]
            if grave:
                number = counted(len(grave), "finding")
                found.append(
                    f"{number} of the severity {one} or more; the first: {grave[0]['text']}"
                )
        else:
            counts = told["flags"].get(one, {"standing": 0, "new": 0})
            stands = KINDS[one].standing
            n = counts["standing" if stands else "new"]
            if one == FAILED:
                # Told without a monitor, which may have run before the stage failed.
                n = max(n, len(told["failed_stages"]))
            if n:
                when = "now" if stands else "in the newest round"
                found.append(f"{counted(n, 'flag')} of the kind {one} {when}")
    return found
