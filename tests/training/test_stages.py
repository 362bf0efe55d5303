"""Stages train, evaluate and export on a real lake."""
# Over 400 lines: three stages that hand one model on, on a lake that is made once.

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.training.small_loop import SmallLoop
from visionloop.errors import InputError, VisionloopError
from visionloop.inference import OnnxModel
from visionloop.selection.spread import predicted_by
from visionloop.stages.evaluate import evaluate
from visionloop.stages.export import export
from visionloop.stages.infer import infer
from visionloop.stages.publish import publish
from visionloop.stages.train import train


@pytest.fixture
def loop(tmp_path: Path) -> SmallLoop:
    return SmallLoop(tmp_path)


def test_train_evaluate_and_export_make_a_model_that_can_be_served(loop: SmallLoop) -> None:
    loop.label(loop.split("pool")[:40] + loop.split("holdout"))
    bundle, metrics = loop.artifact("model"), loop.artifact("metrics")
    trained = train(config=loop.config, round_id="0000", model=bundle, metrics=metrics)
    assert trained.n_labels == 40
    assert metrics.logged["n_labels"] == 40
    assert bundle.metadata["model_id"] == trained.model_id
    row = loop.experiment(trained.model_id)
    rows = loop.lake.read("training_sets").to_pylist()
    assert {r["training_set"] for r in rows} == {row["training_set"]}
    assert {r["sample_id"]: r["label"] for r in rows} == {
        s: loop.truth[s] for s in loop.split("pool")[:40]
    }

    confusion, page, metrics = (loop.artifact(name) for name in ("c", "page.md", "m"))
    judged = evaluate(
        config=loop.config,
        lake_version=trained.lake_version,
        round_id="0000",
        model_id=trained.model_id,
        model=bundle,
        metrics=metrics,
        confusion=confusion,
        slice_1=(small := loop.artifact("slice")),
        page=page,
    )
    # No slice of the holdout is large enough to say which is the worst.
    assert not small.logged and not small.metadata
    assert judged.passed and judged.accuracy > 0.4
    row = loop.experiment(trained.model_id)
    measures = json.loads(row["metrics"])
    assert row["state"] == "passed"
    assert measures["accuracy"] == judged.accuracy and measures["n"] == len(loop.split("holdout"))
    assert measures["training"]["updates"] == 30
    slices = json.loads(row["slices"])
    for column in ("camera", "lux"):
        assert sum(s["n"] for s in slices if s["column"] == column) == measures["n"]
    categories, matrix = confusion.logged["confusion"]
    assert len(categories) == 10 and sum(map(sum, matrix)) == measures["n"]
    north = next(s for s in slices if (s["column"], s["value"]) == ("camera", "north"))
    told = [metrics.logged[f"accuracy camera=north{end}"] for end in ("", " low", " high", " n")]
    assert told == [north[name] for name in ("accuracy", "low", "high", "n")]
    assert "no model in service" in Path(page.path).read_text()
    decision = loop.lake.read("decisions", where="decision == 'gate'").to_pylist()[0]
    assert (decision["subject"], decision["outcome"]) == (trained.model_id, "passed")

    exported = loop.artifact("exported")
    served = export(
        config=loop.config,
        lake_version=judged.lake_version,
        round_id="0000",
        model_id=trained.model_id,
        model=bundle,
        exported=exported,
    )
    model = OnnxModel.load(served.model_uri)
    assert model.card.metrics["accuracy"] == judged.accuracy
    assert loop.experiment(trained.model_id)["uri"] == served.model_uri
    import onnx

    held = onnx.load(Path(exported.path) / "model.onnx").metadata_props
    properties = {entry.key: entry.value for entry in held}
    assert json.loads(properties["card"])["model_id"] == trained.model_id
    assert not (Path(exported.path) / "state.pt").exists()


def test_a_model_that_passed_has_answered_on_the_holdout_and_nowhere_else(loop: SmallLoop) -> None:
    loop.label(loop.split("pool")[:40] + loop.split("holdout"))
    first = train(config=loop.config, round_id="0000")
    assert evaluate(config=loop.config, round_id="0000", model_id=first.model_id).passed
    rows = loop.lake.read("predictions").to_pylist()
    assert {row["sample_id"] for row in rows} == set(loop.split("holdout"))
    assert {row["model_id"] for row in rows} == {first.model_id}
    right = sum(row["label"] == loop.truth[row["sample_id"]] for row in rows)
    measured = json.loads(loop.experiment(first.model_id)["metrics"])
    assert right / len(rows) == measured["accuracy"]
    assert all(row["confidence"] == max(row["probabilities"]) for row in rows)

    served = export(config=loop.config, round_id="0000", model_id=first.model_id)
    publish(
        config=loop.config,
        round_id="0000",
        model_id=first.model_id,
        model_uri=served.model_uri,
        passed=True,
    )
    # That is no ground to choose by: nothing is known of what can be chosen.
    assert predicted_by(loop.lake, loop.lake.version()) is None
    infer(config=loop.config, round_id="0001")
    assert predicted_by(loop.lake, loop.lake.version()) is not None
    again = loop.lake.read("predictions", where=f"model_id == '{first.model_id}'")
    assert len(set(again["sample_id"].to_pylist())) == again.num_rows


def test_a_task_that_is_run_again_changes_nothing(loop: SmallLoop) -> None:
    version = loop.label(loop.split("pool")[:20] + loop.split("holdout"))
    first = train(config=loop.config, lake_version=version, round_id="0000")
    judged = evaluate(
        config=loop.config,
        lake_version=first.lake_version,
        round_id="0000",
        model_id=first.model_id,
    )
    served = export(
        config=loop.config,
        lake_version=judged.lake_version,
        round_id="0000",
        model_id=first.model_id,
    )
    before = loop.counts()
    card = loop.lake.storage.read(f"{served.model_uri}/card.json")
    metrics = loop.artifact("metrics")
    again = train(config=loop.config, lake_version=version, round_id="0000", metrics=metrics)
    assert (again.model_id, again.n_labels) == (first.model_id, first.n_labels)
    assert metrics.logged["trained"] == 0
    assert loop.lake.read("experiments", version=again.lake_version).num_rows == 1
    evaluated = evaluate(
        config=loop.config,
        lake_version=first.lake_version,
        round_id="0000",
        model_id=first.model_id,
    )
    assert (evaluated.passed, evaluated.accuracy) == (judged.passed, judged.accuracy)
    exported = export(
        config=loop.config,
        lake_version=judged.lake_version,
        round_id="0000",
        model_id=first.model_id,
    )
    assert exported.model_uri == served.model_uri
    assert loop.lake.storage.read(f"{served.model_uri}/card.json") == card
    assert loop.counts() == before


def test_a_training_killed_before_its_commit_is_done_again_as_if_it_had_run_once(
    loop: SmallLoop,
) -> None:
    loop.label(loop.split("pool")[:20])
    script = """
import os, sys
from visionloop.lake import run
run.Run.commit = lambda self, **given: os.kill(os.getpid(), 9)
from visionloop.stages.train import train
train(config=sys.argv[1], round_id="0000")
"""
    killed = subprocess.run(
        [sys.executable, "-c", script, loop.config], capture_output=True, check=False
    )
    assert killed.returncode == -9
    assert loop.counts()["experiments"] == loop.counts()["training_sets"] == 0
    trained = train(config=loop.config, round_id="0000")
    assert loop.counts()["experiments"] == 1
    assert loop.counts()["training_sets"] == 20
    assert OnnxModel.load(loop.experiment(trained.model_id)["uri"]).card.model_id


def test_other_labels_and_other_parameters_give_other_models(loop: SmallLoop) -> None:
    pool = loop.split("pool")
    loop.label(pool[:20])
    ids = [train(config=loop.config, round_id="0000").model_id]
    ids.append(train(config=loop.config, round_id="0000", epochs=40).model_id)
    wrong = "1" if loop.truth[pool[0]] != "1" else "2"
    loop.label(pool[:1], **{pool[0]: wrong})
    ids.append(train(config=loop.config, round_id="0000").model_id)
    assert len(set(ids)) == 3
    latest = loop.experiment(ids[2])["training_set"]
    rows = loop.lake.read("training_sets", where=f"training_set == '{latest}'").to_pylist()
    assert {r["sample_id"]: r["label"] for r in rows}[pool[0]] == wrong


def test_holdout_samples_and_their_copies_are_never_trained_on(loop: SmallLoop) -> None:
    holdout, pool = loop.split("holdout"), loop.split("pool")
    loop.label(pool[:20] + holdout)
    prints = loop.lake.read("samples", columns=["sample_id", "fingerprint"]).to_pylist()
    known = {row["sample_id"]: row["fingerprint"] for row in prints}
    samples = loop.lake.read("samples")
    copied = [known[holdout[0]] if s == pool[0] else known[s] for s in _ids(samples)]
    column = samples.schema.get_field_index("fingerprint")
    with loop.lake.run(stage="ingest") as run:
        forged = samples.set_column(column, "fingerprint", pa.array(copied, pa.binary(32)))
        run.replace("samples", forged, "sample_id != ''")
        run.commit()
    assert train(config=loop.config, round_id="0000").n_labels <= 19
    trained_on = set(loop.lake.read("training_sets")["sample_id"].to_pylist())
    assert pool[0] not in trained_on
    assert not trained_on & set(holdout)


def _ids(table: pa.Table) -> list[str]:
    return list(table["sample_id"].to_pylist())


def test_the_random_arm_has_its_own_nested_picks_and_writes_no_labels(tmp_path: Path) -> None:
    loop = SmallLoop(tmp_path, training={"control_arm": True})
    pool = loop.split("pool")
    loop.label(pool[:15] + loop.split("holdout"))
    sets = []
    for round_id, n in (("0000", 15), ("0001", 25)):
        if n > 15:
            loop.label(pool[15:n])
        labels = loop.counts()["labels"]
        trained = train(config=loop.config, round_id=round_id)
        judged = evaluate(config=loop.config, round_id=round_id, model_id=trained.model_id)
        assert loop.counts()["labels"] == labels
        rows = loop.lake.read(
            "experiments", where=f"arm == 'random' and round_id == '{round_id}'"
        ).to_pylist()
        assert len(rows) == 1 and rows[0]["n_labels"] == n
        assert json.loads(rows[0]["metrics"])["accuracy"] > 0.2
        assert rows[0]["state"] == "trained"
        assert judged.accuracy > 0.2
        held = loop.lake.read("training_sets", where=f"training_set == '{rows[0]['training_set']}'")
        assert set(held["arm"].to_pylist()) == {"random"}
        sets.append(set(held["sample_id"].to_pylist()))
    assert sets[0] < sets[1]
    assert sets[1] <= set(pool) and sets[1] != set(pool[:25])


def test_labelled_images_that_cannot_be_read_are_flagged_and_left_out(loop: SmallLoop) -> None:
    chosen = loop.split("pool")[:20]
    loop.label(chosen)
    path = Path(loop.lake.media([chosen[0]])[chosen[0]].removeprefix("file://"))
    path.unlink()
    assert train(config=loop.config, round_id="0000").n_labels == 19
    flags = loop.lake.read("flags", where="stage == 'train'").to_pylist()
    assert [(f["subject"], f["kind"]) for f in flags] == [(chosen[0], "unreadable")]
    for sample_id in chosen[1:]:
        Path(loop.lake.media([sample_id])[sample_id].removeprefix("file://")).unlink()
    with pytest.raises(VisionloopError, match="none of the 20 labelled images can be read"):
        train(config=loop.config, round_id="0000", epochs=2)


def test_a_label_outside_the_classes_stops_the_training_and_names_it(loop: SmallLoop) -> None:
    pool = loop.split("pool")
    loop.label(pool[:5], **{pool[0]: "seven"})
    with pytest.raises(InputError, match="'seven'"):
        train(config=loop.config, round_id="0000")
    assert loop.counts()["experiments"] == 0


def test_a_runner_that_there_is_not_is_refused_and_where_is_no_part_of_which_model(
    loop: SmallLoop,
) -> None:
    loop.label(loop.split("pool")[:20])
    with pytest.raises(InputError, match="did you mean `trainjob`"):
        train(config=loop.config, round_id="0000", runner="trainjobs")
    first = train(config=loop.config, round_id="0000", runner="pod")
    elsewhere = loop.changed("training", checkpoint_steps=3, processes=1, control_arm=False)
    assert train(config=elsewhere, round_id="0000").model_id == first.model_id


def test_without_labels_there_is_nothing_to_train(loop: SmallLoop) -> None:
    with pytest.raises(InputError, match="too few"):
        train(config=loop.config, round_id="0000")


def test_a_holdout_without_labels_publishes_nothing_unasked(loop: SmallLoop) -> None:
    loop.label(loop.split("pool")[:20])
    trained = train(config=loop.config, round_id="0000")
    judged = evaluate(config=loop.config, round_id="0000", model_id=trained.model_id)
    assert (judged.passed, judged.accuracy) == (False, 0.0)
    decision = loop.lake.read("decisions").to_pylist()[0]
    assert decision["outcome"] == "rejected" and "allow_unevaluated" in decision["reason"]
    assert loop.lake.rounds.get("0000").outcome == "kept"  # type: ignore[union-attr]
    allowed = loop.changed("gates", allow_unevaluated=True)
    assert evaluate(config=allowed, round_id="0000", model_id=trained.model_id).passed
    assert loop.lake.read("decisions").num_rows == 1


def test_a_worse_model_is_rejected_against_the_one_in_service_on_the_same_holdout(
    loop: SmallLoop,
) -> None:
    loop.label(loop.split("pool")[:60] + loop.split("holdout"))
    good = train(config=loop.config, round_id="0000", epochs=60)
    judged = evaluate(config=loop.config, round_id="0000", model_id=good.model_id)
    export(config=loop.config, round_id="0000", model_id=good.model_id)
    loop.serve(good.model_id)
    hasty = loop.changed("training", min_updates=1, learning_rate=1e-6)
    bad = train(config=hasty, round_id="0001")
    page = loop.artifact("page.md")
    verdict = evaluate(config=hasty, round_id="0001", model_id=bad.model_id, page=page)
    assert not verdict.passed and verdict.accuracy < judged.accuracy
    assert loop.experiment(bad.model_id)["state"] == "rejected"
    assert loop.experiment(good.model_id)["state"] == "in_service"
    decision = loop.lake.read("decisions", where=f"subject == '{bad.model_id}'").to_pylist()[0]
    inputs = json.loads(decision["inputs"])
    assert inputs["in_service"] == good.model_id
    assert inputs["in_service_accuracy"] == judged.accuracy
    assert "max_drop" in Path(page.path).read_text()


def test_a_candidate_is_compared_with_the_best_that_ever_served_also_when_a_label_changed(
    loop: SmallLoop,
) -> None:
    holdout = loop.split("holdout")
    loop.label(loop.split("pool")[:60] + holdout)
    best = train(config=loop.config, round_id="0000", epochs=60)
    first = evaluate(config=loop.config, round_id="0000", model_id=best.model_id)
    hasty = loop.changed("training", min_updates=1, learning_rate=1e-6)
    worse = train(config=hasty, round_id="0000")
    # The best one is retired, a worse one serves.
    loop.retire(best.model_id)
    loop.serve(worse.model_id)
    allowed = json.dumps(json.loads(hasty) | {"gates": {"max_drop": 0.1}})
    again = train(config=allowed, round_id="0001")
    gate = f"subject == '{again.model_id}'"

    def inputs() -> dict[str, Any]:
        row = loop.lake.read("decisions", where=gate).to_pylist()[0]
        assert best.model_id in row["reason"] and worse.model_id in row["reason"]
        return dict(json.loads(row["inputs"]))

    assert not evaluate(config=allowed, round_id="0001", model_id=again.model_id).passed
    known = inputs()
    assert (known["best"], known["best_accuracy"]) == (best.model_id, first.accuracy)
    assert known["in_service"] == worse.model_id and known["in_service_accuracy"] < first.accuracy
    # A corrected label makes another holdout: what was measured before does not count.
    wrong = {s: str((int(loop.truth[s]) + 1) % 10) for s in holdout[:12]}
    loop.label(list(wrong), **wrong)
    evaluate(config=allowed, round_id="0001", model_id=again.model_id)
    assert inputs()["holdout"] != known["holdout"]
    assert inputs()["best_accuracy"] != first.accuracy


def test_a_model_and_an_id_that_do_not_belong_together_are_refused(loop: SmallLoop) -> None:
    loop.label(loop.split("pool")[:20] + loop.split("holdout"))
    bundle = loop.artifact("model")
    one = train(config=loop.config, round_id="0000", model=bundle)
    two = train(config=loop.config, round_id="0000", epochs=40)
    assert one.model_id != two.model_id
    with pytest.raises(InputError, match=f"not of {two.model_id}"):
        evaluate(config=loop.config, round_id="0000", model_id=two.model_id, model=bundle)
    with pytest.raises(InputError, match="no model 'm9'"):
        evaluate(config=loop.config, round_id="0000", model_id="m9")


def test_a_graph_that_differs_from_pytorch_is_not_exported(loop: SmallLoop) -> None:
    loop.label(loop.split("pool")[:20])
    bundle = loop.artifact("model")
    trained = train(config=loop.config, round_id="0000", model=bundle)
    folder = Path(bundle.path)
    card = json.loads((folder / "card.json").read_text())
    with np.load(folder / "reference.npz") as held:
        arrays = dict(held)
    arrays["embedding"] = arrays["embedding"] + 2e-4
    np.savez(folder / "reference.npz", **arrays)
    import hashlib

    digest = hashlib.sha256((folder / "reference.npz").read_bytes()).hexdigest()
    card["files"]["reference.npz"] = digest
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(VisionloopError, match=r"ONNX and PyTorch differ by 0\.0002"):
        export(config=loop.config, round_id="0000", model_id=trained.model_id, model=bundle)
    assert not loop.lake.storage.exists(loop.lake.path("models", trained.model_id))


def test_only_training_imports_pytorch(loop: SmallLoop) -> None:
    loop.label(loop.split("pool")[:20] + loop.split("holdout"))
    trained = train(config=loop.config, round_id="0000")
    script = """
import sys
from visionloop.stages.evaluate import evaluate
from visionloop.stages.export import export
from visionloop.stages.infer import infer
from visionloop.stages.publish import publish
config, model_id = sys.argv[1:]
infer(config=config, round_id="0000")
assert "scipy" not in sys.modules
# That compares models and slices by SciPy's tests.
evaluate(config=config, round_id="0000", model_id=model_id)
export(config=config, round_id="0000", model_id=model_id)
heavy = {"torch", "torchvision", "sklearn", "kserve", "kfp", "cv2"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script, loop.config, trained.model_id], check=True)


def test_inference_resumes_and_never_mixes_spaces(loop: SmallLoop) -> None:
    cold = infer(config=loop.config, round_id="0000")
    assert (cold.model_id, cold.n_predicted) == ("", 0)
    n = len(loop.split("pool") + loop.split("holdout"))
    assert cold.n_embedded == n
    before = loop.counts()
    again = infer(config=loop.config, round_id="0000")
    assert (again.n_embedded, again.space) == (0, cold.space)
    assert loop.counts() == before

    loop.label(loop.split("pool")[:30] + loop.split("holdout"))
    trained = train(config=loop.config, round_id="0000")
    export(config=loop.config, round_id="0000", model_id=trained.model_id)
    version = loop.serve(trained.model_id)
    page = loop.artifact("page.md")
    warm = infer(config=loop.config, lake_version=version, round_id="0001", page=page)
    assert (warm.model_id, warm.n_predicted, warm.n_embedded) == (trained.model_id, n, 0)
    text = Path(page.path).read_text()
    assert trained.model_id in text and "no weights were named" in text
    own = OnnxModel.load(loop.experiment(trained.model_id)["uri"]).card.embedding_space
    assert set(loop.lake.spaces()) == {cold.space, own}
    ids, vectors = loop.lake.embeddings(own)
    assert len(ids) == n and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    predictions = loop.lake.read("predictions").to_pylist()
    assert all(abs(sum(row["probabilities"]) - 1) < 1e-3 for row in predictions)
    # The same task once more, at the version from before its commit.
    before = loop.counts()
    retried = infer(config=loop.config, lake_version=version, round_id="0001")
    assert retried.n_predicted == 0 and loop.counts() == before
    assert loop.lake.read("predictions", version=retried.lake_version).num_rows == n


def test_a_task_that_is_tried_again_goes_on_behind_the_chunks_that_it_had_finished(
    loop: SmallLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visionloop.inference import embedding

    version = loop.lake.version()
    monkeypatch.setattr(embedding, "CHUNK", 16)
    work, chunks = embedding.embed_and_predict, []

    def failing(media: Any, *arguments: Any) -> Any:
        chunks.append(len(media))
        if len(chunks) == 3:
            raise RuntimeError("the node went away")
        return work(media, *arguments)

    monkeypatch.setattr(embedding, "embed_and_predict", failing)
    with pytest.raises(RuntimeError):
        infer(config=loop.config, lake_version=version, round_id="0000")
    assert loop.lake.version() == version, "nothing is committed before all of it is done"
    n = len(loop.split("pool") + loop.split("holdout"))
    done = infer(config=loop.config, lake_version=version, round_id="0000")
    assert chunks[:3] == [16, 16, 16] and sum(chunks[3:]) == n - 32
    assert done.n_embedded == n
    ids, _ = loop.lake.embeddings(done.space, version=done.lake_version)
    assert len(ids) == len(set(ids)) == n
    assert not list(loop.lake.storage.list(loop.lake.path("shards"))), (
        "what is committed is removed"
    )


def test_a_sample_that_cannot_be_read_now_is_flagged_until_it_can(loop: SmallLoop) -> None:
    path = loop.images / "0003.png"
    data = path.read_bytes()
    path.unlink()
    metrics = loop.artifact("metrics")
    done = infer(config=loop.config, round_id="0000", metrics=metrics)
    assert metrics.logged["n_unreadable"] == 1
    assert metrics.logged["n_samples"] == done.n_embedded + 1
    flags = loop.lake.read("flags", where="stage == 'infer'").to_pylist()
    assert [json.loads(f["evidence"])["reason"] for f in flags] == ["missing"]
    infer(config=loop.config, round_id="0000")
    assert loop.lake.read("flags", where="stage == 'infer'").num_rows == 1
    path.write_bytes(data)
    assert infer(config=loop.config, round_id="0000").n_embedded == 1
    assert loop.lake.read("flags", where="stage == 'infer'").num_rows == 0


def test_an_empty_lake_is_inferred_without_an_error(tmp_path: Path) -> None:
    config = json.dumps({"name": "small", "lake": str(tmp_path / "lake")})
    assert infer(config=config).n_embedded == 0


def test_frozen_classes_refuse_a_new_one_where_the_configuration_names_none(
    tmp_path: Path,
) -> None:
    loop = SmallLoop(tmp_path, classes=[])
    pool = loop.split("pool")
    loop.label(pool[:20])
    first = train(config=loop.config, round_id="0000")
    assert loop.experiment(first.model_id)["classes"] == sorted(
        {loop.truth[sample_id] for sample_id in pool[:20]}
    )
    loop.label(pool[20:22], **{pool[20]: "ten"})
    with pytest.raises(InputError, match="classes of the first model: 'ten'"):
        train(config=loop.config, round_id="0001")


def test_what_is_in_service_is_neither_judged_again_nor_written_over(loop: SmallLoop) -> None:
    holdout = loop.split("holdout")
    loop.label(loop.split("pool")[:20] + holdout)
    trained = train(config=loop.config, round_id="0000")
    evaluate(config=loop.config, round_id="0000", model_id=trained.model_id)
    served = export(config=loop.config, round_id="0000", model_id=trained.model_id)
    loop.serve(trained.model_id)
    files = {
        info.uri: (info.generation, loop.lake.storage.read(info.uri))
        for info in loop.lake.storage.list(served.model_uri)
    }
    # A label is corrected and the gate is raised before the round's tasks run once more.
    loop.label(holdout[:1], **{holdout[0]: str((int(loop.truth[holdout[0]]) + 1) % 10)})
    strict = loop.changed("gates", min_accuracy=1.0)
    assert evaluate(config=strict, round_id="0000", model_id=trained.model_id).passed
    assert loop.experiment(trained.model_id)["state"] == "in_service"
    assert loop.lake.read("decisions")["outcome"].to_pylist() == ["passed"]
    export(config=strict, round_id="0000", model_id=trained.model_id)
    assert files == {
        info.uri: (info.generation, loop.lake.storage.read(info.uri))
        for info in loop.lake.storage.list(served.model_uri)
    }
