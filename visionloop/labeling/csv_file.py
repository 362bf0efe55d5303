"""The provider `csv`: requests are a CSV file that a spreadsheet opens, and so are the answers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from visionloop.labeling.answers import is_skip
from visionloop.labeling.oracle import sample_uris
from visionloop.labeling.provider import Ask, Collected, Progress, Rejected
from visionloop.labeling.tables import answered, labels_of_files, parse_label_csv
from visionloop.lake.storage import local_path

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake

COLUMNS = ("sample_id", "file", "label", "reason")
_BETWEEN = re.compile(r'[\s,;"]+')


def request_uri(lake: Lake, round_id: str) -> str:
    """Return where the request file of a round lies."""
    return lake.path("label_requests", f"{lake.loop}-{round_id}.csv")


def answers_uri(config: LoopConfig, lake: Lake, round_id: str) -> str:
    """Return where the answers are read from: `labeling.labels`, or the request file itself.

    Args:
        config: The loop's configuration.
        lake: The loop's lake.
        round_id: The round that asks.
    """
    return config.labeling.labels or request_uri(lake, round_id)


class CsvProvider:
    """Writes ``sample_id,file,label,reason`` with empty labels, and reads what people filled in.

    A row without a label is no answer, and takes none back.
    """

    def __init__(self, config: LoopConfig, lake: Lake) -> None:
        self._config, self._lake = config, lake

    def request(self, round_id: str, asks: Sequence[Ask]) -> dict[str, str]:
        """Write the request file of a round; answers that it already holds are kept."""
        uri = request_uri(self._lake, round_id)
        held: dict[str, str] = {}
        if self._lake.storage.exists(uri):
            held, _ = labels_of_files(uri, {}, sample_ids=[ask.sample_id for ask in asks])
        rows = []
        for ask in asks:
            shown = str(local_path(ask.uri)) if ask.uri.startswith("file://") else ask.uri
            rows.append((ask.sample_id, shown, held.get(ask.sample_id, ""), ask.reason))
        if rows:
            self._write(uri, rows)
        return {ask.sample_id: "" for ask in asks}

    def poll(self, round_id: str, requests: Mapping[str, str]) -> Progress:
        """Count the requests that have an answer."""
        found = self.collect(round_id, requests, "")
        return Progress(len(found.samples), len(requests), found.where)

    def collect(self, round_id: str, requests: Mapping[str, str], cursor: str) -> Collected:
        """Read the answers, see `LabelingProvider.collect` for the parameters.

        Rows that name no sample of the lake are told as rejected.
        """
        where = answers_uri(self._config, self._lake, round_id)
        if not self._lake.storage.exists(where):
            return Collected(frozenset(), [], where=where)
        known, unknown = labels_of_files(where, sample_uris(self._lake))
        classes = self._config.classes
        mine = {
            sample: None if is_skip(known[sample], classes) else known[sample]
            for sample in requests
            if sample in known
        }
        return Collected(
            frozenset(mine),
            answered(mine, "csv"),
            [Rejected("", "", "unknown_sample", name) for name in unknown],
            where=where,
        )

    def recall(self, round_id: str, requests: Mapping[str, str]) -> list[str]:
        """Take the rows out of the request file that have no answer.

        Rows that were answered since somebody looked last stay: the file that is written is the one
        that was read to decide.
        """
        held = self.collect(round_id, requests, "").samples
        gone = [sample for sample in requests if sample not in held]
        uri = request_uri(self._lake, round_id)
        if not gone or not self._lake.storage.exists(uri):
            return gone
        text = self._lake.storage.read(uri).decode("utf-8-sig")
        filled = {value.lower() for _, _, value, _ in parse_label_csv(text, uri)}
        gone = [sample for sample in gone if sample not in filled]
        left_out = set(gone)
        # By line, whatever a spreadsheet has made of commas: an id stands in one alone.
        left = [
            line
            for line in text.splitlines(keepends=True)
            if left_out.isdisjoint(_BETWEEN.split(line))
        ]
        self._lake.storage.write(uri, "".join(left).encode())
        return gone

    def _write(self, uri: str, rows: Sequence[tuple[str, ...]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
        self._lake.storage.write(uri, text.getvalue().encode())
