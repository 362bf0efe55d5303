"""Who is told of new flags: the section ``notify`` in ``loop.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from visionloop.monitoring.kinds import KINDS, Severity
from visionloop.validation import nearest
from visionloop.value_forms import Form

EventSort = Literal["flags", "decisions", "failures"]


class Receiver(BaseModel):
    """A web address that is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[
        str, Form(r"^[a-z][a-z0-9-]{0,31}$", "write lower-case letters, digits and -, at most 32")
    ] = Field(
        "default",
        description="the receiver's name: its secrets are the variables (or keys of the Secret "
        "`visionloop`) `VISIONLOOP_NOTIFY_TOKEN_<NAME>`, a bearer token, and "
        "`VISIONLOOP_NOTIFY_SECRET_<NAME>`, the key of its signatures",
    )
    url: Annotated[
        str, Form(r"^(https?://[^\s]+)?$", "write http://… or https://…, or leave it empty")
    ] = Field(
        "",
        description="where to: http://… or https://…; empty: `VISIONLOOP_NOTIFY_URL_<NAME>`, for "
        "an address that is a secret by itself, such as a chat's",
    )
    format: Literal["cloudevent", "json", "text"] = Field(
        "cloudevent",
        description="cloudevent: CloudEvents 1.0, structured. json: the same fields without the "
        'envelope. text: {"text": …}, as Slack and Mattermost take it',
    )
    events: list[EventSort] = Field(
        default_factory=lambda: list[EventSort](["flags", "decisions", "failures"]),
        description="what it is told: new flags, decisions (a publication that is blocked, a "
        "rollback, a round that starts), stages that failed",
    )
    min_severity: Severity = Field(
        "warning", description="the least severity that it is told: info, warning or error"
    )
    kinds: list[str] = Field(
        default_factory=list, description="kinds of flags that it is told; empty: all"
    )

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: list[str]) -> list[str]:
        for kind in kinds:
            if kind not in KINDS:
                raise ValueError(f"there is no kind of flag `{kind}`{nearest(kind, list(KINDS))}")
        return kinds


class NotifyConfig(BaseModel):
    """Where new flags, decisions and failures are sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: list[Receiver] = Field(
        default_factory=list, description="web addresses that are told; none by default"
    )
    timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="a receiver that does not answer in time is tried again"
    )
    keep_days: float = Field(
        7.0,
        gt=0,
        description="days for which the next stages try again to send what could not be sent",
    )

    @field_validator("to")
    @classmethod
    def _distinct(cls, receivers: list[Receiver]) -> list[Receiver]:
        names = [one.name for one in receivers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two receivers are called {', '.join(twice)}: give each a `name`")
        return receivers
