"""The section `sources` of `loop.yaml`: where images come from, and how they are read."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from visionloop.value_forms import StorageUri

# What a URI's end tells of its kind; anything else is a folder, a prefix or a single file.
_KINDS = (
    (re.compile(r"(?i)\.(tar|tar\.gz|tgz)$"), "tar"),
    (re.compile(r"(?i)\.(txt|csv|parquet)$"), "list"),
    (re.compile(r"(?i)\.events\.jsonl(\.gz)?$"), "events"),
)
_BRACES = re.compile(r"\{[^{}]*\}")

Kind = Literal["folder", "list", "tar", "events"]


class VideoConfig(BaseModel):
    """Which frames of a video are samples: exactly one of the three is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: float | None = Field(
        None, gt=0, description="seconds between frames: the first one, and the next at or after"
    )
    scenes: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="the first frame, and each that begins a scene: whose grey values at 64 by 36 "
        "pixels differ from those of the frame before by more than this on average, 0 to 1; 0.1 "
        "finds hard cuts",
    )
    frames: StorageUri = Field(
        "",
        description="URI of a text file with the frames' names, one a line, as LightlyOne writes "
        "them: `clip-099-mp4.png` is frame 99, counted from 0, of `clip.mp4`",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> VideoConfig:
        given = [
            name
            for name, value in (
                ("every", self.every),
                ("scenes", self.scenes),
                ("frames", self.frames or None),
            )
            if value is not None
        ]
        if len(given) != 1:
            found = " and ".join(f"`{name}`" for name in given) or "none of them"
            raise ValueError(
                f"name exactly one of `every`, `scenes` and `frames`; there is {found}"
            )
        return self


class SourceConfig(BaseModel):
    """Where images come from."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    uri: StorageUri = Field(
        description="folder or bucket prefix, list, tar archive or folder of logged events: a "
        "path, file://… or gs://…; a tar's may have braces: `train-{000..009}.tar`"
    )
    kind: Literal["auto", "folder", "list", "tar", "events"] = Field(
        "auto",
        description="auto: told from the end of the URI, `.tar`, `.tar.gz` and `.tgz` are tar, "
        "`.txt`, `.csv` and `.parquet` are lists, all else is a folder. folder: every file below "
        "it. list: the files that it names. tar: the members of one archive, or of every archive "
        "below a folder. events: the images of requests that were logged with their bodies",
    )
    copy_media: bool = Field(
        False,
        alias="copy",
        description="copy the bytes into the lake; otherwise they are referenced where they lie",
    )
    metadata: Literal["sidecar", "none"] = Field(
        "sidecar", description="sidecar: `photo.jpg.json` or `photo.json` beside an image"
    )
    labels: StorageUri = Field(
        "none",
        description="labels that are known already: `none`, `folder` (the name of an image's "
        "folder), `source` (the column `label` of a list, the `.cls` files of a tar), or the URI "
        "of a CSV file with columns file,label or sample_id,label",
    )
    video: VideoConfig | None = Field(
        None,
        description="frames of the videos that a folder or list holds become samples; without it "
        "a video is counted as unreadable",
    )

    @property
    def resolved_kind(self) -> Kind:
        """The kind, told from the URI where it is not given."""
        if self.kind != "auto":
            return self.kind
        for pattern, kind in _KINDS:
            if pattern.search(self.uri):
                return kind  # type: ignore[return-value]
        return "folder"

    @model_validator(mode="after")
    def _fits_its_kind(self) -> SourceConfig:
        kind = self.resolved_kind
        if self.video is not None and kind not in ("folder", "list"):
            raise ValueError(f"`video` is for folders and lists, this source is of kind {kind}")
        if self.labels == "source" and kind not in ("list", "tar"):
            raise ValueError(
                f"`labels: source` is for lists and tars; this source is of kind {kind}"
            )
        if self.labels == "folder" and kind == "events":
            raise ValueError(
                "logged requests lie in no folders: take `labels: none`, or a CSV file"
            )
        if _BRACES.search(self.uri) and kind not in ("tar", "folder"):
            raise ValueError(f"braces are for tars, this source is of kind {kind}")
        return self
