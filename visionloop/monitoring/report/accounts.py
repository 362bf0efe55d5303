"""The funnel from files found to labels learned from, by round and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visionloop.monitoring.report.asked import Asked, asked
from visionloop.monitoring.report.data import Funnel
from visionloop.monitoring.report.data_funnel import Account, Part, Step, parts
from visionloop.monitoring.report.events import events
from visionloop.monitoring.report.files import FileCounts, count_files
from visionloop.monitoring.report.learned import Labels
from visionloop.monitoring.report.reading import Reader, array, content
from visionloop.words import round_name

_NO_PICTURES = "notes and other files that are no pictures"
_COPY_ROLES = {
    "copy": "further copies of a picture",
    "again": "the same file, rewritten with the same bytes",
    "unreadable": "files that cannot be decoded",
    "no_picture": _NO_PICTURES,
    "unknown": "files whose bytes could not be had",
}


class Counts:
    """What is counted once and then told by round and in all.

    Attributes:
        files: Files by state and by what they are.
        embedded: bool [samples], whether the sample has a vector in the base space.
        predicted: bool [samples], whether the model that pages show predicted it.
        rounds: All rounds that anything came into the lake in, ascending.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        samples = reader.samples
        self.files: FileCounts = count_files(
            reader.read("files", "uri", "generation", "state", "sample_id", "round_id", "found_at"),
            samples,
            reader.read("checks", "subject", "generation", "state"),
        )
        self._ids = array(samples["sample_id"])
        self._rounds = np.asarray(array(pc.fill_null(samples["round_id"], "")), dtype=object)
        self._splits = np.asarray(array(pc.fill_null(samples["split"], "")), dtype=object)
        self._carried_in = np.full(len(self._ids), None, dtype=object)
        self._carried_in[self.files.carried] = self.files.carried_in.to_pylist()
        self.space = base_space(reader.runs)
        self.embedded = self._among(_embedded(reader, self.space))
        self.predicted = self._among(array(reader.predictions["sample_id"]))
        self.asked = asked(reader)
        held = {row["round_id"] for row in reader.rounds}
        self.rounds = sorted(
            {*self.files.states, *np.unique(self._rounds), *self.asked, *held} - {""}
        )
        self._skipped, self._select = _told_by_runs(reader.runs)
        self._labels = Labels(reader)

    def _among(self, some: pa.Array) -> np.ndarray:
        return np.asarray(pc.is_in(self._ids, value_set=some).to_numpy(zero_copy_only=False))

    def funnel(self, round_id: str) -> Funnel:
        """Return the short funnel of one round."""
        states = self.files.states.get(round_id, Counter())
        told = self.asked.get(round_id, Asked())
        select = self._select.get(round_id, {})
        return Funnel(
            found=sum(states.values()),
            ok=states["ok"],
            flagged=states["flagged"],
            unreadable=states["unreadable"],
            no_picture=states["no_picture"],
            unchecked=states["unchecked"],
            skipped=self._skipped.get(round_id, 0),
            pool=int(select["eligible"]) if select.get("eligible") is not None else None,
            selected=len(told.selected),
            labelled=len(told.selected & self._labels.known(told.selected)),
            trained=self._labels.trained_in(round_id),
        )

    def account(self, round_id: str) -> Account:
        """Return the whole funnel of one round."""
        mine = self._rounds == round_id
        steps = self._intake([round_id], mine)
        told = self.asked.get(round_id, Asked())
        select = self._select.get(round_id, {})
        steps += _choice(select, told, round_id)
        steps += told.steps()
        steps += self._labels.learned(round_id, told)
        return Account(round_id, tuple(steps), ())

    def total(self) -> Account:
        """Return the funnel of all rounds together."""
        rounds = sorted({*self.files.states, *self._rounds})
        every = np.ones(len(self._ids), np.bool_)
        steps = self._intake(rounds, every)
        steps += self._chosen_in_all()
        if self.asked:
            together = Asked()
            for one in self.asked.values():
                together.add(one)
            steps += [s for s in together.steps() if s.key in ("requested", "answered")]
        steps += self._labels.in_all(len(self._ids))
        return Account("", tuple(steps), events(self.reader))

    def _intake(self, rounds: Iterable[str], mine: np.ndarray) -> list[Step]:
        states: Counter[str] = Counter()
        roles: Counter[str] = Counter()
        names = set(rounds)
        for name in names:
            states.update(self.files.states.get(name, Counter()))
            roles.update(self.files.roles.get(name, Counter()))
        found = sum(states.values())
        n = int(mine.sum())
        inside = np.array([name in names for name in self._carried_in], np.bool_)
        here = inside & mine
        gone = mine & (self._carried_in == None)  # noqa: E711 - elementwise
        splits = Counter(self._splits[mine].tolist())
        # Neither can be decoded; what a check has told apart is told apart here, too.
        roles["no_picture"] = states["no_picture"]
        roles["unreadable"] -= states["no_picture"]
        rest = [Part(words, roles[role]) for role, words in _COPY_ROLES.items() if roles[role]]
        known = int((inside & ~mine).sum())
        if known:
            rest.append(Part("files of pictures that another round brought", known))
        entered = parts(
            ("pictures whose file is gone from its source", int(gone.sum())),
            ("pictures whose file another round found", n - int(here.sum()) - int(gone.sum())),
        )
        out = parts(
            ("kept for the holdout", splits["holdout"]),
            ("reserved: of a holdout group, or a copy of the holdout", splits["reserved"]),
        )
        embedded, predicted = int(self.embedded[mine].sum()), int(self.predicted[mine].sum())
        by = self.reader.model_names.get(self.reader.predicting, "")
        return [
            Step("found", "Files found", "files", found),
            Step(
                "checked",
                "Files checked",
                "files",
                found - states["unchecked"],
                found,
                "found",
                rest=parts(("not checked yet", states["unchecked"])),
                kept=parts(
                    ("ok", states["ok"]),
                    ("flagged", states["flagged"]),
                    ("unreadable", states["unreadable"]),
                    (
                        "no pictures by their names (notes, sidecars left behind)",
                        states["no_picture"],
                    ),
                ),
            ),
            Step("samples", "Pictures", "pictures", n, found, "found", entered, tuple(rest)),
            Step(
                "embedded",
                "Embedded",
                "pictures",
                embedded,
                n,
                "samples",
                rest=parts(("without an embedding", n - embedded)),
            ),
            Step(
                "predicted",
                "Predicted",
                "pictures",
                predicted,
                n,
                "samples",
                rest=parts(("without a prediction", n - predicted)),
                note=f"By the {by}." if by else "No model has predicted them yet.",
            ),
            Step("pool", "In the pool", "pictures", splits["pool"], n, "samples", rest=out),
        ]

    def _chosen_in_all(self) -> list[Step]:
        steps: list[Step] = []
        newest = max((r for r, told in self._select.items() if told.get("removed")), default="")
        if newest:
            steps += _selectable(self._select[newest], newest)
        chosen: set[str] = set().union(*(one.selected for one in self.asked.values()))
        pool = self._splits == "pool"
        mask = self._among(pa.array(sorted(chosen), pa.string()))
        inside = int((mask & pool).sum())
        outside = int((mask & ~pool).sum())
        gone = len(chosen) - inside - outside
        return [
            *steps,
            Step(
                "selected",
                "Chosen so far",
                "pictures",
                len(chosen),
                int(pool.sum()),
                "pool",
                entered=parts(
                    ("chosen, and outside of the pool now", outside),
                    ("chosen, and not in the lake any more", gone),
                ),
                rest=parts(("not chosen in any round", int(pool.sum()) - inside)),
            ),
        ]


def base_space(runs: list[dict[str, Any]]) -> str:
    """Return the embedding space that `infer` used last, "" before the first."""
    for row in reversed(runs):
        if row["stage"] == "infer":
            space = content(row["outputs"]).get("space")
            if space:
                return str(space)
    return ""


def _embedded(reader: Reader, space: str) -> pa.Array:
    if not space or space not in reader.lake.spaces(version=reader.version or None):
        return pa.array([], pa.string())
    found = [
        array(batch["sample_id"]) for batch in reader.batches(f"embeddings_{space}", "sample_id")
    ]
    return pa.concat_arrays(found) if found else pa.array([], pa.string())


def _told_by_runs(
    runs: list[dict[str, Any]],
) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
    """Return the files that a round knew already, and what its `select` told of the pool."""
    skipped: dict[str, int] = {}
    select: dict[str, dict[str, Any]] = {}
    for row in runs:
        if row["stage"] == "ingest":
            # A round that was started again met its own files a second time: the first run says
            # what earlier rounds had brought.
            skipped.setdefault(row["round_id"], int(content(row["counts"]).get("skipped", 0)))
        elif row["stage"] == "select":
            # A round that selects again returns its picks and has no pool to tell of.
            outputs = content(row["outputs"])
            if outputs.get("eligible") is not None:
                select[row["round_id"]] = outputs
    return skipped, select


def _selectable(told: Mapping[str, Any], round_id: str) -> list[Step]:
    if told.get("pool") is None or told.get("removed") is None:
        return []
    removed = {str(name): int(n) for name, n in told["removed"].items()}
    return [
        Step(
            "selectable",
            "Could be chosen",
            "pictures",
            int(told["eligible"]),
            int(told["pool"]),
            rest=parts(*((name.replace("_", " "), n) for name, n in removed.items())),
            note=f"Of the pool as {round_name(round_id)} found it, earlier pictures among it.",
        )
    ]


def _choice(told: Mapping[str, Any], asked_for: Asked, round_id: str) -> list[Step]:
    steps = _selectable(told, round_id)
    n = len(asked_for.selected)
    if steps:
        of = steps[0].n
        rest = parts(("not chosen: the batch is full", of - n))
        steps.append(Step("selected", "Chosen", "pictures", n, of, "selectable", rest=rest))
    elif n:
        steps.append(Step("selected", "Chosen", "pictures", n))
    return steps
