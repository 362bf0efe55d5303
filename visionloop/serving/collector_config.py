"""The section `serving.collector` of `loop.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from visionloop.value_forms import Form


class CollectorConfig(BaseModel):
    """What `visionloop collect` takes, and what it keeps of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: Literal["hashes", "bodies"] = Field(
        "hashes",
        description="what is kept of a request: `hashes` of its images, or `bodies`, pixels "
        "included; replies are kept whole",
    )
    keep_rate: float = Field(
        1.0,
        gt=0,
        le=1,
        description="with `keep: bodies`, the share of the requests whose pixels are kept, drawn "
        "at random; the events tell it, so that estimates can be weighted",
    )
    redact: Annotated[
        str, Form(r"^([\w.]+:\w+)?$", "write module:function, for example faces:blur")
    ] = Field(
        "",
        description="with `keep: bodies`, Python function that each image goes through before it "
        "is kept: `module:function(image: bytes, content_type: str) -> bytes | None`",
    )
    token_file: str = Field(
        "",
        description="file with the tokens that let a sender post, one a line, 16 characters or "
        "more; read again when it changes; empty: none is asked for",
    )
    certificate: str = Field("", description="PEM file of its certificate; empty: no TLS")
    key: str = Field("", description="PEM file of its key; empty: `certificate` holds it")
    client_authority: str = Field(
        "",
        description="PEM file of the authority whose certificates let a sender post, instead of a "
        "token",
    )
    max_body_mib: float = Field(128, gt=0, description="larger events are refused (413)")
    max_spool_mib: float = Field(
        1024,
        gt=0,
        description="while more than this waits on its disk to be reduced or uploaded, events are "
        "refused (503)",
    )
    min_free_mib: float = Field(
        64, ge=0, description="while less than this is free on its disk, events are refused (503)"
    )

    @model_validator(mode="after")
    def _together(self) -> CollectorConfig:
        if self.keep == "hashes" and (self.redact or self.keep_rate < 1):
            raise ValueError("`keep_rate` and `redact` are for `keep: bodies`")
        if self.client_authority and not self.certificate:
            raise ValueError("`client_authority` needs a `certificate`: it is asked for over TLS")
        if self.key and not self.certificate:
            raise ValueError("`key` needs a `certificate`: without one there is no TLS")
        return self
