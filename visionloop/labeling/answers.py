"""What was answered so far, whoever was asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from visionloop.labeling.oracle import open_oracle, sample_uris
from visionloop.labeling.requests import answers_uri
from visionloop.labeling.tables import labels_of_files

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


def read_answers(
    config: LoopConfig, lake: Lake, round_id: str, wanted: Sequence[str], *, version: str = ""
) -> tuple[dict[str, str], str]:
    """Read the answers to a round's label requests.

    Args:
        config: The loop's configuration.
        lake: Its lake.
        round_id: The round that asked.
        wanted: Samples whose labels are wanted.
        version: Lake version to read at; empty for the newest.

    Returns:
        Label by sample id, of those that were answered; and where the answers lie.

    Raises:
        InputError: The answers cannot be understood.
        StorageError: They cannot be read.
    """
    if config.labeling.provider == "oracle":
        oracle = open_oracle(config, lake, version=version or None)
        return oracle.labels(wanted), oracle.where
    where = answers_uri(config, lake, round_id)
    if not lake.storage.exists(where):
        return {}, where
    known, _ = labels_of_files(where, sample_uris(lake, version=version or None))
    return {sample: known[sample] for sample in wanted if sample in known}, where
