"""A labelling tool in a file: a provider of one's own, as `labeling.provider` can name it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from visionloop.config import LoopConfig
from visionloop.errors import VisionloopError
from visionloop.labeling.provider import Annotation, Ask, Box, Collected, Progress, Rejected
from visionloop.lake import Lake

PROVIDER = "tests.labeling.file_tool:FileTool"
START = datetime(2026, 1, 1, tzinfo=UTC)


class FileTool:
    """Keeps tasks and answers in a JSON file beside the lake."""

    def __init__(self, config: LoopConfig, lake: Lake) -> None:
        self.path = Path(lake.uri.removeprefix("file://") + "-tool.json")
        self.state: dict[str, Any] = {"tasks": {}, "clock": 0, "down": False, "kill": ""}
        if self.path.exists():
            self.state = json.loads(self.path.read_text())

    def save(self) -> None:
        self.path.write_text(json.dumps(self.state))

    def _answers(self) -> None:
        if self.state["down"]:
            raise VisionloopError("the tool does not answer", where=str(self.path))

    def _kill(self, when: str) -> None:
        if self.state["kill"] == when:
            self.state["kill"] = ""
            self.save()
            os.kill(os.getpid(), signal.SIGKILL)

    def request(self, round_id: str, asks: Sequence[Ask]) -> dict[str, str]:
        self._answers()
        tasks = self.state["tasks"]
        for number, ask in enumerate(asks):
            task = tasks.setdefault(
                f"{round_id}/{ask.sample_id}",
                {"id": f"t{len(tasks)}", "answers": [], "shown": asdict(ask), "changed": 0},
            )
            task["wanted"] = ask.answers
            if number == len(asks) // 2:
                self._kill("in the middle of a push")
        self.save()
        self._kill("after a push")
        return {ask.sample_id: tasks[f"{round_id}/{ask.sample_id}"]["id"] for ask in asks}

    def _of(self, round_id: str) -> dict[str, dict[str, Any]]:
        tasks = self.state["tasks"].items()
        return {k.split("/")[1]: task for k, task in tasks if k.startswith(f"{round_id}/")}

    def poll(self, round_id: str, requests: Mapping[str, str]) -> Progress:
        self._answers()
        mine = self._of(round_id)
        done = sum(
            sum(a["state"] != "draft" for a in task["answers"]) >= task["wanted"]
            for task in mine.values()
        )
        return Progress(done, len(mine), str(self.path))

    def collect(self, round_id: str, requests: Mapping[str, str], cursor: str) -> Collected:
        self._answers()
        self.state["collected_from"] = cursor
        since = int(cursor or -1)
        mine = self._of(round_id)
        changed = {s: task for s, task in mine.items() if task["changed"] > since}
        found, rejected = [], []
        for sample, task in changed.items():
            for one in task["answers"]:
                at = START + timedelta(seconds=one["at"])
                if one.get("rejected"):
                    detail = one.get("detail", "as it is")
                    bad = Rejected(one["id"], sample, one["rejected"], detail)
                    if one["who"]:  # some tools do not tell who answered
                        bad = replace(bad, annotator=one["who"], seconds=one["seconds"])
                        bad = replace(bad, created_at=at, updated_at=at)
                    rejected.append(bad)
                    continue
                boxes = one["boxes"]
                drawn = None if boxes is None else tuple(Box(**box) for box in boxes)
                found.append(
                    Annotation(one["id"], sample, one["who"], one["state"], one["label"], drawn,
                               one["seconds"], None, at, at)
                )  # fmt: skip
        self.save()
        gone = frozenset(requests) - mine.keys()
        return Collected(frozenset(changed), found, rejected, gone, str(self.state["clock"]),
                         str(self.path))  # fmt: skip

    def recall(self, round_id: str, requests: Mapping[str, str]) -> list[str]:
        self._answers()
        mine = self._of(round_id)
        back = [s for s in requests if s not in mine or not mine[s]["answers"]]
        for sample in back:
            self.state["tasks"].pop(f"{round_id}/{sample}", None)
        self.save()
        return back


class Desk:
    """Where people sit who answer a round's tasks."""

    def __init__(self, lake: Lake, round_id: str = "0000") -> None:
        self._lake, self._round = lake, round_id

    @property
    def tool(self) -> FileTool:
        return FileTool(LoopConfig(lake=self._lake.uri), self._lake)

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        return self.tool._of(self._round)

    def set(self, **values: Any) -> None:
        tool = self.tool
        tool.state |= values
        tool.save()

    def _change(self, sample: str, change: Callable[[dict[str, Any], int], None]) -> None:
        tool = self.tool
        tool.state["clock"] += 1
        task = tool.state["tasks"][f"{self._round}/{sample}"]
        change(task, tool.state["clock"])
        task["changed"] = tool.state["clock"]
        tool.save()

    def answer(self, sample: str, label: str | None, who: str = "alice", **more: Any) -> None:
        """Answer as a person does; the same person's second answer corrects the first."""

        def change(task: dict[str, Any], at: int) -> None:
            task["answers"] = [a for a in task["answers"] if a["who"] != who]
            told = {"id": f"{task['id']}-{who}", "who": who, "label": label, "state": "done"}
            task["answers"].append(told | {"boxes": None, "seconds": 2.5, "at": at} | more)

        self._change(sample, change)

    def take_away(self, sample: str, who: str = "alice") -> None:
        def change(task: dict[str, Any], at: int) -> None:
            task["answers"] = [a for a in task["answers"] if a["who"] != who]

        self._change(sample, change)

    def delete_task(self, sample: str) -> None:
        tool = self.tool
        del tool.state["tasks"][f"{self._round}/{sample}"]
        tool.save()
