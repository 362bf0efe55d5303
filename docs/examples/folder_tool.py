"""A labelling tool that is a shared folder: a `task.json` for each sample, answers beside it."""

import json
from datetime import UTC, datetime

from visionloop.labeling.provider import Annotation, Collected, Progress, Rejected
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
        found, broken, now = [], [], datetime.now(UTC)
        for file in self.storage.list(f"{self.root}/{round_id}/"):
            sample, person = file.uri.split("/")[-2], name_of(file.uri).removesuffix(".json")
            if sample not in requests or person == "task":
                continue
            try:  # {"label": "cat", "seconds": 2.5}
                said = {"seconds": None} | json.loads(self.storage.read(file.uri))
                state = "done" if said["label"] else "skipped"
                answer = (state, said["label"], None, said["seconds"], None, now, now)
                found.append(Annotation(file.uri, sample, person, *answer))
            except (ValueError, LookupError, TypeError) as error:  # half written, for example
                broken.append(Rejected(file.uri, sample, "malformed", repr(error)))
        return Collected(frozenset(requests), found, broken, where=self.root)

    def poll(self, round_id, requests):
        answers = self.collect(round_id, requests, "").annotations
        return Progress(len({one.sample_id for one in answers}), len(requests), self.root)

    def recall(self, round_id, requests):
        held = self.collect(round_id, requests, "")
        begun = {one.sample_id for one in (*held.annotations, *held.rejected)}
        left = sorted(requests.keys() - begun)
        return [self.storage.delete(requests[sample]) or sample for sample in left]
