"""The section `sources` of `loop.yaml`: where images come from, and how they are read."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from visionloop.path_pattern import PathPattern
from visionloop.value_forms import StorageUri

# What a URI's end tells of its kind; anything else is a folder, a prefix or a single file.
_KINDS = (
    (re.compile(r"(?i)\.(tar|tar\.gz|tgz)$"), "tar"),
    (re.compile(r"(?i)\.(txt|csv|parquet)$"), "list"),
    (re.compile(r"(?i)\.events\.jsonl(\.gz)?$"), "events"),
)
_BRACES = re.compile(r"\{[^{}]*\}")

Kind = Literal["folder", "list", "tar", "events", "annotated"]
# As `visionloop.interchange.formats.FORMATS` has them, which a test holds.
Format = Literal[
    "",
    "coco",
    "voc",
    "yolo",
    "folders",
    "table",
    "lightly",
    "label_studio",
    "cvat",
    "webdataset",
    "fiftyone",
]


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
    format: Format = Field(
        "",
        description="the source is an annotated set of this format, read as `visionloop import` "
        "reads it: its images, labels, boxes and metadata",
    )
    media: StorageUri = Field(
        "", description="where the images of an annotated set lie; empty: in the set"
    )
    copy_media: bool = Field(
        False,
        alias="copy",
        description="copy the bytes into the lake; otherwise they are referenced where they lie",
    )
    metadata: Literal["all", "sidecar", "none"] = Field(
        "all",
        description="all: what lies beside an image (`photo.jpg.json`, `photo.json`, also .yaml "
        "and .yml), a table of metadata, the path and the EXIF of the image. sidecar: all but EXIF",
    )
    metadata_table: StorageUri = Field(
        "",
        description="table of metadata with a row a file: CSV, Parquet or JSON lines with a column "
        "`file_name`, paths relative to its folder; empty: `metadata.csv`, `metadata.parquet` or "
        "`metadata.jsonl` at the root of a folder, if there is one",
    )
    pattern: str = Field(
        "",
        description="what the path below the source says: "
        "`{camera}/{date:%Y-%m-%d}/{shot:int}.{}`. {name} is text, {name:int} and {name:float} are "
        "numbers, {name:%Y…} is a time, {} is not kept, ** is any path",
    )
    labels: StorageUri = Field(
        "none",
        description="labels that are known already: `none`, `folder` (the name of an image's "
        "folder), `source` (the column `label` of a list, the `.cls` files of a tar; what an "
        "annotated set says, by default), or the URI of a CSV file with columns file,label or "
        "sample_id,label",
    )
    video: VideoConfig | None = Field(
        None,
        description="frames of the videos that a folder or list holds become samples; without it "
        "a video is counted as unreadable",
    )

    @property
    def resolved_kind(self) -> Kind:
        """The kind, told from the URI where it is not given."""
        if self.format:
            return "annotated"
        if self.kind != "auto":
            return self.kind
        for pattern, kind in _KINDS:
            if pattern.search(self.uri):
                return kind  # type: ignore[return-value]
        return "folder"

    @property
    def brings_labels(self) -> bool:
        """Whether the labels that the source itself has are taken."""
        by_itself = bool(self.format) and "labels" not in self.model_fields_set
        return self.labels == "source" or by_itself

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, text: str) -> str:
        if text:
            PathPattern(text)
        return text

    @model_validator(mode="after")
    def _fits_its_kind(self) -> SourceConfig:
        kind = self.resolved_kind
        if self.video is not None and kind not in ("folder", "list"):
            raise ValueError(f"`video` is for folders and lists, this source is of kind {kind}")
        if self.format and self.kind != "auto":
            raise ValueError(f"a source has a `kind` ({self.kind}) or a `format`, not both")
        if self.media and not self.format:
            raise ValueError("`media` is for annotated sets: name the set's `format`")
        if self.labels == "source" and kind not in ("list", "tar", "annotated"):
            raise ValueError("`labels: source` is for lists, tars and annotated sets")
        if self.labels == "folder" and kind == "events":
            raise ValueError(
                "logged requests lie in no folders: take `labels: none`, or a CSV file"
            )
        if (self.pattern or self.metadata_table) and self.metadata == "none":
            raise ValueError("`metadata: none` leaves out what `pattern` and `metadata_table` say")
        if self.pattern and kind not in ("folder", "list", "tar"):
            raise ValueError(
                f"`pattern` is for folders, lists and tars, this source is of kind {kind}"
            )
        if self.metadata_table and kind not in ("folder", "tar"):
            raise ValueError(
                f"`metadata_table` is for folders and tars, this source is of kind {kind}"
            )
        if _BRACES.search(self.uri) and kind not in ("tar", "folder"):
            raise ValueError(f"braces are for tars, this source is of kind {kind}")
        return self
