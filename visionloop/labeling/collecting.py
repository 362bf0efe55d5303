"""What was answered to a round's label requests, whoever was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visionloop.labeling.answers import is_skip
from visionloop.labeling.oracle import open_oracle, sample_uris
from visionloop.labeling.requests import answers_uri
from visionloop.labeling.tables import labels_of_files

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


@dataclass(frozen=True)
class Answers:
    """What came back.

    Attributes:
        labels: Label by sample id.
        skipped: Samples that nobody can label.
        where: Where it was read from.
        unknown: Rows that name no sample of the lake.
    """

    labels: dict[str, str]
    skipped: list[str]
    where: str
    unknown: list[str] = field(default_factory=list)


def read_answers(
    config: LoopConfig, lake: Lake, round_id: str, wanted: Sequence[str], *, version: str = ""
) -> Answers:
    """Read the answers to a round's label requests.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        round_id: The round that asked.
        wanted: Samples whose labels are wanted.
        version: Lake version to read at; empty for the newest.

    Returns:
        The answers to what is wanted. An oracle's missing label is a skip: it will never know more.

    Raises:
        InputError: The answers cannot be understood.
        StorageError: They cannot be read.
    """
    if config.labeling.provider == "oracle":
        oracle = open_oracle(config, lake, version=version or None)
        labels = oracle.labels(wanted)
        return Answers(labels, [s for s in wanted if s not in labels], oracle.where)
    where = answers_uri(config, lake, round_id)
    if not lake.storage.exists(where):
        return Answers({}, [], where)
    known, unknown = labels_of_files(where, sample_uris(lake, version=version or None))
    mine = {sample: known[sample] for sample in wanted if sample in known}
    skipped = [sample for sample, answer in mine.items() if is_skip(answer, config.classes)]
    labels = {sample: answer for sample, answer in mine.items() if sample not in set(skipped)}
    return Answers(labels, skipped, where, unknown)
