"""An oracle: someone who knows every label already, in demonstrations and benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from visionloop.errors import InputError
from visionloop.labeling.answers import is_skip
from visionloop.labeling.provider import Ask, Collected, Progress
from visionloop.labeling.tables import answered, labels_of_files
from visionloop.media.sources.folder import folder_label

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake


class Oracle:
    """Knows labels by sample id."""

    def __init__(self, known: dict[str, str], where: str) -> None:
        self._known = known
        self.where = where

    def labels(self, sample_ids: Iterable[str]) -> dict[str, str]:
        """Return the labels that are known among some samples."""
        return {wanted: self._known[wanted] for wanted in sample_ids if wanted in self._known}

    def classes(self) -> list[str]:
        """Return the names of all classes that the oracle uses, in order."""
        return sorted(set(self._known.values()))


class OracleProvider:
    """Answers at once; what it does not know is skipped, since it will never know more."""

    def __init__(self, config: LoopConfig, lake: Lake) -> None:
        self._config, self._lake = config, lake

    def request(self, round_id: str, asks: Sequence[Ask]) -> dict[str, str]:
        """Do nothing: it knows already."""
        return {ask.sample_id: "" for ask in asks}

    def poll(self, round_id: str, requests: Mapping[str, str]) -> Progress:
        """Tell that everything is answered."""
        where = open_oracle(self._config, self._lake).where
        return Progress(len(requests), len(requests), where)

    def collect(self, round_id: str, requests: Mapping[str, str], cursor: str) -> Collected:
        """Answer every request; see `LabelingProvider.collect`, which has the same parameters."""
        oracle = open_oracle(self._config, self._lake)
        known: dict[str, str | None] = dict.fromkeys(requests)
        known |= oracle.labels(requests)
        answers = answered(known, "oracle")
        return Collected(frozenset(requests), answers, where=oracle.where)

    def recall(self, round_id: str, requests: Mapping[str, str]) -> list[str]:
        """Forget the requests."""
        return list(requests)


def open_oracle(config: LoopConfig, lake: Lake, *, version: str | None = None) -> Oracle:
    """Open the oracle that `labeling.labels` names.

    Args:
        config: The loop's configuration.
        lake: Its lake, which tells where each sample's file lies.
        version: Lake version to read at.

    Raises:
        InputError: The labels cannot be understood, or none is of a sample in the lake.
        StorageError: They cannot be read.
    """
    uris = sample_uris(lake, version=version)
    if config.labeling.labels == "folder":
        return Oracle({sample: folder_label(uri) for uri, sample in uris.items()}, "folder names")
    found, _ = labels_of_files(config.labeling.labels, uris)
    known = {name: label for name, label in found.items() if not is_skip(label, config.classes)}
    if uris and not known:
        # Taken at its word, it would have every sample skipped for good.
        raise InputError(
            "the oracle knows the label of no sample in the lake",
            where=config.labeling.labels,
            remedy="Name the files in its column `file` as they lie in the source",
        )
    return Oracle(known, config.labeling.labels)


def sample_uris(lake: Lake, *, version: str | None = None) -> dict[str, str]:
    """Return the sample id of every readable file, by its URI.

    Of a file that was overwritten it is that of its newest bytes: people look at those.
    """
    columns = ["uri", "sample_id", "state"]
    rows = lake.read("files", columns=columns, version=version).to_pylist()
    rows.sort(key=lambda row: (row["state"] != "removed", str(row["uri"]), str(row["sample_id"])))
    return {row["uri"]: row["sample_id"] for row in rows if row["sample_id"]}
