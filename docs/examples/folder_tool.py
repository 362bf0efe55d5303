"""A labelling tool that is a shared folder: a `task.json` for each sample, answers beside it."""

import json
from datetime import UTC, datetime

from visionloop.labeling.provider import Annotation, Collected, Progress
from visionloop.lake.storage import name_of, open_storage


class FolderTool:
    def __init__(self, config, lake):
        self.root = config.labeling.labels or lake.path("label_folder")
        self.storage = open_storage(self.root)

    def request(self, round_id, asks):
        places = {a.sample_id: f"{self.root}/{round_id}/{a.sample_id}/task.json" for a in asks}
        for one in asks:
            task = {"image": one.uri, "why": one.reason, "model": one.label, "wanted": one.answers}
            self.storage.write(places[one.sample_id], json.dumps(task).encode())
        return places

    def collect(self, round_id, requests, cursor):
        found, now = [], datetime.now(UTC)
        for file in self.storage.list(f"{self.root}/{round_id}/"):
            sample, person = file.uri.split("/")[-2], name_of(file.uri).removesuffix(".json")
            if sample in requests and person != "task":  # {"label": "cat", "seconds": 2.5}
                said = json.loads(self.storage.read(file.uri))
                label, seconds = said["label"], said.get("seconds")
                answer = ("done" if label else "skipped", label, None, seconds, None, now, now)
                found.append(Annotation(file.uri, sample, person, *answer))
        return Collected(frozenset(requests), found, where=self.root)

    def poll(self, round_id, requests):
        answers = self.collect(round_id, requests, "").annotations
        return Progress(len({one.sample_id for one in answers}), len(requests), self.root)

    def recall(self, round_id, requests):
        answered = {one.sample_id for one in self.collect(round_id, requests, "").annotations}
        left = sorted(requests.keys() - answered)
        return [self.storage.delete(requests[sample]) or sample for sample in left]
