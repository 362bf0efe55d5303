"""What the acts of the watch are decided by, besides what starts a round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from visionloop.monitoring.acting_state import StandingActs


@dataclass(frozen=True)
class StandingFlags:
    """Flags of one kind that stand.

    Attributes:
        kind: Their kind.
        of: What they are about, in words; empty where they are of many samples or files.
        model_id: The model that they are about; empty for none.
        n: How many.
    """

    kind: str
    of: str
    model_id: str
    n: int


@dataclass(frozen=True)
class Suspects:
    """How many labels are doubted.

    Attributes:
        n_checked: Labels that could be judged.
        n_suspected: Those of them that are likely wrong.
        look: How often they were looked at with another result, with this time.
        n_unchecked: Labels that could not be judged, without those that never are.
    """

    n_checked: int
    n_suspected: int
    look: int = 1
    n_unchecked: int = 0


@dataclass(frozen=True)
class Requests:
    """What was counted of a model's requests, told by two readings of counters or more.

    Attributes:
        model_id: The model that was in service at both ends.
        requests: Since the last reading that was judged.
        errors: Those of them that ended in an error of the server (5xx).
        looks: How often the rate of this model was judged, with this time where it is.
        last: Each server's counters at the newest reading: requests and errors since it started.
        total: Requests and errors of this model over all readings.
        before: Requests and errors of the model that was in service before it.
        problem: Why the counters could not be read now; empty where they could.
        since: When the model went into service, as its pointer tells.
    """

    model_id: str = ""
    requests: int = 0
    errors: int = 0
    looks: int = 0
    last: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    total: tuple[int, int] = (0, 0)
    before: tuple[int, int] = (0, 0)
    problem: str = ""
    since: str = ""


def read_again(
    held: Requests | None,
    model_id: str,
    now: Mapping[str, tuple[int, int]],
    least: int,
    *,
    since: str = "",
) -> Requests:
    """Add a reading of the counters to those before.

    A server's first reading tells where its counters stand, no more. Counters that fell are those
    of a server that was started again: they began at 0. What was counted while the model changed is
    of nobody knows which, and is left out.

    Args:
        held: What the watch before left; None for the first.
        model_id: The model in service.
        now: Requests and errors of each server since it started.
        least: Requests that are enough to judge: a window that had them is over.
        since: When that model went into service: one that came back meanwhile did not serve all of
            the time, though it did at both readings.
    """
    if held is None or not held.model_id:
        return Requests(model_id, last=dict(now), since=since)
    if held.model_id != model_id:
        return Requests(model_id, last=dict(now), before=held.total, since=since)
    if held.since != since:
        return replace(held, last={**held.last, **now}, since=since)
    new = [0, 0]
    for server, counts in now.items():
        was = held.last.get(server, counts)
        fell = counts[0] < was[0] or counts[1] < was[1]
        for i in range(2):
            new[i] += counts[i] if fell else counts[i] - was[i]
    over = held.requests >= least
    requests = new[0] + (0 if over else held.requests)
    errors = new[1] + (0 if over else held.errors)
    return Requests(
        model_id,
        requests,
        errors,
        held.looks + (requests >= least),
        {**held.last, **now},
        (held.total[0] + new[0], held.total[1] + new[1]),
        held.before,
        since=since,
    )


@dataclass(frozen=True)
class Pairs:
    """Two models' answers about the same random picks, labelled after both were trained.

    Attributes:
        n: Images that both have answered.
        n_better: Of those that only the model in service is right about.
        n_worse: Those that only the model before is right about.
        looks: How often they were judged with another result, with this time.
        of: The model in service, and the one before it.
    """

    n: int
    n_better: int
    n_worse: int
    looks: int
    of: tuple[str, str] = ("", "")

    @property
    def drop(self) -> float:
        """By how much less of the images the model in service is right."""
        return (self.n_worse - self.n_better) / self.n if self.n else 0.0


def pairs_again(held: Pairs | None, now: Pairs, least: int) -> Pairs:
    """Return a comparison with the number of looks at it.

    The same numbers are the same test, which raises nothing that it did not raise before, and what
    is too few is not tested: neither is a further look.

    Args:
        held: What the watch before saw; None for the first.
        now: What is seen now; its looks are those that may have been before it was remembered.
        least: Images that are enough to judge.
    """
    if held is None or held.of != now.of:
        return now
    anew = (held.n, held.n_better, held.n_worse) != (now.n, now.n_better, now.n_worse)
    return replace(now, looks=held.looks + (now.n >= least and (anew or not held.looks)))


@dataclass(frozen=True)
class Service:
    """What a watch saw of labels, answers and the model in service.

    Attributes:
        endpoint: Name of the endpoint.
        in_service: The model in service; empty for none.
        before: The model that was in service before it; empty for none.
        before_uri: Its bundle.
        random_share: Share of a batch that is drawn at random by the configuration.
        n_comparisons: Comparisons of deployed answers since the last round that could be judged.
        n_judged: Comparisons of the newest monitor, of answers and inputs, that could be judged.
        flags: Flags that stand, of drift and of the kinds that the configuration names.
        suspects: Doubted labels; None where no monitor has judged labels.
        requests: Counted requests; None where they were not looked at.
        pairs: The two models' answers; None where they were not looked at.
        acts: What the watch has done and not taken back.
    """

    endpoint: str = ""
    in_service: str = ""
    before: str = ""
    before_uri: str = ""
    random_share: float = 0.0
    n_comparisons: int = 0
    n_judged: int = 0
    flags: tuple[StandingFlags, ...] = ()
    suspects: Suspects | None = None
    requests: Requests | None = None
    pairs: Pairs | None = None
    acts: StandingActs = field(default_factory=StandingActs)
