"""What the parts of the monitor share: what they look at, and what each found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionloop.config import LoopConfig
    from visionloop.lake import Lake
    from visionloop.lake.run import Run
    from visionloop.monitoring.unjudged import Unjudged


@dataclass(frozen=True)
class Look:
    """What every part of the monitor looks at.

    Attributes:
        lake: The lake.
        run: The monitor's run, which all parts write through.
        loop: The loop's configuration.
        space: The embedding space; empty where there is none.
        now: Written as the time of everything that is found.
    """

    lake: Lake
    run: Run
    loop: LoopConfig
    space: str
    now: datetime


@dataclass(frozen=True)
class Part:
    """What one part of the monitor found, and wrote.

    Attributes:
        new: Rows of ``flags`` that did not stand before, without round and run.
        metrics: Numbers for KFP.
        page: Its section of the Markdown page, which starts with a heading; empty for none.
        outputs: What the run's outputs hold, by name.
        not_judged: What there was too little of to be judged.
    """

    new: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    page: str = ""
    outputs: dict[str, Any] = field(default_factory=dict)
    not_judged: Sequence[Unjudged] = ()
