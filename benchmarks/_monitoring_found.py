"""Injected anomalies of samples, labels, metadata: precision and recall, ours and each peer's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import version

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks._injected import (
    FUTURE,
    JUMP,
    PLACELESS,
    START,
    Journeys,
    Pool,
    among_clothes,
    among_digits,
    journeys,
    new_digits,
)
from benchmarks._label_noise import KINDS as NOISES
from benchmarks._label_noise import available, draw, with_errors
from benchmarks._monitoring_peers_run import AllPeers
from benchmarks._rows import Row
from benchmarks._sound_samples import sound_rows
from visionloop.labeling.trust.doubting import doubt
from visionloop.labeling.trust.out_of_sample import cross_validate
from visionloop.labeling.trust.suspects import find_suspects
from visionloop.monitoring.config import MonitoringConfig
from visionloop.monitoring.contradictions import flag_contradictions
from visionloop.monitoring.findings import Findings
from visionloop.monitoring.outliers import find_outliers

Mask = NDArray[np.bool_]
SEEDS, QUICK_SEEDS = 5, 2
WRONG_LABELS = 0.1


@dataclass
class Found:
    """What one finder flagged of what was put in, added up over seeds."""

    right: int = 0
    flagged: int = 0
    planted: int = 0

    def add(self, flagged: Mask, planted: Mask) -> None:
        """Count one pool, both bool [n]."""
        self.right += int((flagged & planted).sum())
        self.flagged += int(flagged.sum())
        self.planted += int(planted.sum())

    @property
    def precision(self) -> float:
        """Share of the flags that are right; of none, 0."""
        return self.right / self.flagged if self.flagged else 0.0

    @property
    def recall(self) -> float:
        """Share of what was put in that is flagged."""
        return self.right / self.planted if self.planted else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of the two."""
        return 2 * self.right / max(self.flagged + self.planted, 1)


def compared(case: str, ours: Found, others: Mapping[str, Found]) -> list[Row]:
    """Return a row each for precision, recall and F1, beside each peer."""
    told = f"{case}, {ours.planted} put in, {ours.flagged} flagged"
    rows = []
    for who, other in others.items():
        rows += [
            Row(f"{told}: precision", ours.precision, who, other.precision, "", None, False),
            Row(f"{told}: recall", ours.recall, who, other.recall, "", None, False),
            Row(f"{told}: F1", ours.f1, who, other.f1, "", 1.0, False),
        ]
    return rows


def outlier_rows(peers: AllPeers, quick: bool) -> list[Row]:
    """Put what does not belong into a batch that comes to known samples, and look for it.

    Datalab sees both at once; the local outlier factor learns from the known ones alone.
    """
    seeds = range(QUICK_SEEDS if quick else 2 * SEEDS)
    rows: list[Row] = []
    for case, put_in in OUTLIERS.items():
        pools = [put_in(seed) for seed in seeds]
        found = peers.datalab.found({f"outliers:{i}": pool.vectors for i, pool in enumerate(pools)})
        ours, theirs, factor = Found(), Found(), Found()
        for i, pool in enumerate(pools):
            ours.add(our_outliers(pool), pool.odd)
            factor.add(_local_outlier_factor(pool), pool.odd)
            if found:
                flagged = _mask(found[f"outliers:{i}"], len(pool.odd)) & pool.new
                theirs.add(flagged, pool.odd)
        others = {f"Datalab {peers.datalab.versions.get('cleanlab', '')}": theirs} if found else {}
        others[f"scikit-learn {version('scikit-learn')}, LOF, novelty"] = factor
        rows += compared(f"outlier: {case}", ours, others)
    return rows + sound_rows(peers, quick)


OUTLIERS: dict[str, Callable[[int], Pool]] = {
    "clothes among digits, pixels": partial(among_digits, "clothing"),
    "blood cells among digits, pixels": partial(among_digits, "bccd"),
    "two new classes of digits, network": new_digits,
    "blood cells among clothes, pixels": partial(among_clothes, "bccd"),
}


def our_outliers(pool: Pool) -> Mask:
    """Return what the monitor flags of a pool with its defaults, bool [n]."""
    names = [f"{i:064d}" for i in range(len(pool.odd))]
    new = {names[i] for i in np.flatnonzero(pool.new)}
    found = find_outliers(new, lambda: [(pa.array(names), pool.vectors)], MonitoringConfig())
    if found.why_not:
        print(f"outlier: not judged: {found.why_not}", file=sys.stderr)
    return _mask([int(one.sample_id) for one in found.found], len(pool.odd))


def _local_outlier_factor(pool: Pool) -> Mask:
    from sklearn.neighbors import LocalOutlierFactor

    known = LocalOutlierFactor(novelty=True).fit(pool.vectors[~pool.new])
    flagged = np.zeros(len(pool.odd), dtype=np.bool_)
    flagged[pool.new] = known.predict(pool.vectors[pool.new]) == -1
    return flagged


def metadata_rows(*, quick: bool) -> list[Row]:
    """Put clocks and places that cannot be into the metadata of driving cameras."""
    who = f"scikit-learn {version('scikit-learn')}, isolation forest, the true share"
    ours: dict[str, Found] = {}
    forest: dict[str, Found] = {}
    for seed in range(QUICK_SEEDS if quick else 2 * SEEDS):
        made = journeys(seed)
        findings = Findings(START + timedelta(days=30))
        names = made.samples["sample_id"].to_pylist()
        flag_contradictions(made.metadata, made.samples, set(names), MonitoringConfig(), findings)
        flagged = {flag["subject"]: flag["kind"] for flag in findings.flags}
        guessed = _isolated(made)
        put_in = np.array([made.wrong.get(name, "") for name in names])
        said = np.array([CONTRADICTIONS.get(flagged.get(name, ""), "") for name in names])
        for what in CONTRADICTIONS.values():
            ours.setdefault(what, Found()).add(said == what, put_in == what)
            # It names no kind: what it takes for odd is held against each, and is wrong of none
            # that another is put in.
            other = (put_in != "") & (put_in != what)
            forest.setdefault(what, Found()).add(guessed & ~other, put_in == what)
    rows = []
    for kind, what in CONTRADICTIONS.items():
        rows += compared(f"{kind}: {what}", ours[what], {who: forest[what]})
    return rows


CONTRADICTIONS = {"future_time": FUTURE, "impossible_place": PLACELESS, "gps_jump": JUMP}


def _isolated(made: Journeys) -> Mask:
    from sklearn.ensemble import IsolationForest

    times = [time.timestamp() for time in made.samples["captured_at"].to_pylist()]
    cameras = np.unique(made.metadata["camera"].to_pylist(), return_inverse=True)[1]
    columns = [made.metadata[name].to_numpy() for name in ("latitude", "longitude")]
    # What is usual differs from camera to camera.
    table = np.stack([np.array(times), *columns], axis=1)
    odd = np.zeros(len(table), dtype=np.bool_)
    for camera in range(cameras.max() + 1):
        mine = cameras == camera
        share = len(made.wrong) / len(table)
        forest = IsolationForest(contamination=share, random_state=0)
        odd[mine] = forest.fit_predict(table[mine]) == -1
    return odd


def label_rows(peers: AllPeers, quick: bool) -> list[Row]:
    """Put wrong labels in, and look for them with the same out-of-sample probabilities."""
    names = [name for name in available() if not quick or name == "digits"]
    rows: list[Row] = []
    for name in names:
        for noise in NOISES:
            arrays, drawn = {}, {}
            for seed in range(QUICK_SEEDS if quick else SEEDS):
                x, y = draw(name, seed)
                given = with_errors(y, WRONG_LABELS, noise, seed)
                told = cross_validate(x, given, int(given.max()) + 1).probabilities
                p = np.asarray(told, dtype=np.float64)
                arrays[f"labels:{seed}:y"] = given
                arrays[f"labels:{seed}:p"] = p / p.sum(axis=1, keepdims=True)
                drawn[seed] = (given, told, given != y)
            ours, theirs, found = Found(), Found(), peers.datalab.found(arrays)
            judged = 0
            for seed, (given, told, wrong) in drawn.items():
                suspects = find_suspects(given, told)
                ours.add(np.asarray(suspects.flagged), wrong)
                judged += doubt(given, told, suspects).enough
                if found:
                    theirs.add(_mask(found[f"labels:{seed}"], len(given)), wrong)
            case = f"label_suspect: {name}, {WRONG_LABELS:.0%} wrong, {noise}"
            who = f"Datalab {peers.datalab.versions.get('cleanlab', '')}"
            rows += compared(case, ours, {who: theirs} if found else {})
            # Below a certain skill of the models the monitor flags nothing, and says so.
            told_of = f"{case}: sets that the monitor judges, of {len(drawn)}"
            rows.append(Row(told_of, judged, "whoever judges all", len(drawn), "", None, False))
    return rows


def _mask(rows: list[int], n: int) -> Mask:
    mask = np.zeros(n, dtype=np.bool_)
    mask[rows] = True
    return mask
