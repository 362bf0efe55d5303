"""The section `labeling` of a `loop.yaml`: who labels, when a round has enough, who is believed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from visionloop.value_forms import StorageUri


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelStudioConfig(_Section):
    """A Label Studio server; its token comes by environment or as a mounted secret."""

    url: str = Field(
        "", pattern=r"^(https?://\S+)?$", description="address of the server, as the pods reach it"
    )
    project: str = Field(
        "", description="title of the project; by default the loop's name. One project a loop"
    )
    media: Literal["auto", "signed", "endpoint", "inline"] = Field(
        "auto",
        description="how browsers get images: signed: time-limited URLs of the bucket; endpoint: "
        "`visionloop labels media`, which answers with a signed link each; inline: in the task "
        "itself, for a few small images; auto: signed for gs://, endpoint where `media_url` is set",
    )
    media_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="address of `visionloop labels media`, as the annotators' browsers reach it",
    )
    url_hours: float = Field(
        168.0, gt=0, le=168, description="hours for which a link to an image is valid"
    )


class ReadyConfig(_Section):
    """When a round has enough labels to go on without the rest."""

    share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the requests for training that have to be answered; the holdout's "
        "always all, unless the deadline passes",
    )
    deadline_hours: float = Field(
        0.0,
        ge=0,
        description="hours after the first request of a round from which it goes on with what is "
        "there, if at least `least` of its requests are answered, and of the holdout's by "
        "themselves; 0: it waits as long as it takes",
    )
    least: float = Field(
        0.5, ge=0, le=1, description="share that must be answered when the deadline passes"
    )


class TrustConfig(_Section):
    """How far labels are believed, and what is asked to find out."""

    overlap: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the requests that several annotators answer; 0 with `oracle` and "
        "`csv`, which have one answer a sample",
    )
    annotators: int = Field(2, ge=2, le=20, description="how many answer each of those")
    consensus: Literal["majority", "agreement", "crowdlab"] = Field(
        "majority",
        description="majority: most votes; agreement: only what all agree on; crowdlab: annotators "
        "and model weighed by how good they are (Goh et al. 2022), for loops with many samples "
        "that several answer. A tie, and what an agreement does not reach, is asked about again",
    )
    min_quality: float = Field(
        0.5,
        ge=0,
        le=1,
        description="a consensus with less quality is a conflict: it is flagged and not trained on",
    )
    min_iou: float = Field(
        0.5, gt=0, le=1, description="overlap from which two annotators' boxes are of one object"
    )
    relabel: Literal["none", "activelab"] = Field(
        "none",
        description="activelab: relabelling competes with new labels for the round's budget, on "
        "ActiveLab's scale (Goh and Mueller 2023)",
    )
    max_relabel_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of a round's budget that relabelling may take; the budget counts "
        "samples, however many people answer each",
    )


class AutoLabelsConfig(_Section):
    """Labels that the model gives itself, where the holdout proves that it may."""

    precision: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="precision that the model's answers must reach on the holdout, at the lower "
        "end of an interval, from some confidence on; all such intervals of a loop together hold "
        "with 95%; 0: the model labels nothing",
    )
    audit: float = Field(
        0.05, gt=0, le=1, description="share of the automatic labels that people are asked about"
    )
    max_share: float = Field(
        0.5, ge=0, le=1, description="largest share of a training set that may be automatic"
    )


class LabelingConfig(_Section):
    """Who labels what was selected."""

    provider: str = Field(
        "csv",
        pattern=r"^(oracle|csv|label_studio|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$",
        description="oracle: true labels are known and answer at once (demonstrations, "
        "benchmarks); csv: requests are written to a CSV file, and read back when people filled "
        "it; label_studio: tasks of a Label Studio project; `package.module:Class`: your own, see "
        "docs/labeling.md",
    )
    labels: StorageUri = Field(
        "",
        description="oracle: `folder` (the name of an image's folder is its label) or the URI of a "
        "CSV file with columns file,label or sample_id,label; csv: URI of the answers, by default "
        "the request file itself",
    )
    ask: Literal["classes", "boxes", "both"] = Field(
        "classes",
        description="what people are asked for: the class of each image, boxes around objects of "
        "the loop's classes, or both; rounds train on classes",
    )
    show: list[str] = Field(
        [],
        description="columns of the samples' metadata that people see beside an image, such as "
        "`camera`; none by default: metadata may name people, or tell the class",
    )
    label_studio: LabelStudioConfig = Field(
        LabelStudioConfig(), description="where Label Studio is, and how images reach it"
    )
    ready: ReadyConfig = Field(ReadyConfig(), description="when a round has answers enough")
    trust: TrustConfig = Field(
        TrustConfig(), description="how many people answer, and how far they are believed"
    )
    auto_labels: AutoLabelsConfig = Field(
        AutoLabelsConfig(), description="what a model may label, with proof"
    )

    @model_validator(mode="after")
    def _providers_know_where(self) -> LabelingConfig:
        if self.provider == "oracle" and not self.labels:
            raise ValueError("the provider `oracle` needs `labels`: `folder`, or a CSV file's URI")
        if self.provider == "label_studio" and not self.label_studio.url:
            raise ValueError("the provider `label_studio` needs `label_studio.url`")
        if self.provider in ("oracle", "csv") and self.trust.overlap:
            raise ValueError(
                f"the provider `{self.provider}` has one answer a sample: leave out `trust.overlap`"
            )
        if self.provider == "oracle" and self.trust.relabel != "none":
            raise ValueError(
                "the provider `oracle` answers the same again: leave out `trust.relabel`"
            )
        return self
