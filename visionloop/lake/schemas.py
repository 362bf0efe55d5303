"""The one place where the schema of every table of the lake is written.

Rows are keyed by nature (a round, a sample, a model), never by run. Every row carries the round and
the run that wrote it, so that any number in a report can be followed back.
"""

from __future__ import annotations

import pyarrow as pa

from visionloop.errors import InputError

# Raised with every change to these tables; `visionloop/lake/migration.py` says how a lake follows.
SCHEMA_VERSION = 6

TIME = pa.timestamp("us", tz="UTC")
PROBABILITIES = pa.list_(pa.float32())
# Full class scores of each box, before any threshold; coordinates in pixels of the stored image.
BOXES = pa.list_(
    pa.struct(
        [
            ("x_min", pa.float32()),
            ("y_min", pa.float32()),
            ("x_max", pa.float32()),
            ("y_max", pa.float32()),
            ("label", pa.string()),
            ("scores", pa.list_(pa.float32())),
        ]
    )
)

WRITTEN_BY = [("round_id", pa.string()), ("run_id", pa.string())]

_PICKS: list[tuple[str, pa.DataType]] = [
    ("sample_id", pa.string()),
    ("rank", pa.int32()),
    ("objectives", pa.string()),  # JSON: each objective's value at the step it was picked
    ("arm", pa.string()),  # selected | unknown (nothing found in it) | random
    ("propensity", pa.float64()),
    ("nearest_chosen", pa.string()),
    ("nearest_distance", pa.float64()),
    ("model_id", pa.string()),
    ("space", pa.string()),
    ("selected_at", TIME),
]

TABLES: dict[str, list[tuple[str, pa.DataType]]] = {
    # What was found at a URI, also when it is empty, broken or a second copy.
    "files": [
        ("uri", pa.string()),
        ("generation", pa.string()),  # object generation, or mtime in ns for a file
        ("size", pa.int64()),
        # ok | unreadable | skipped (not to be had, tried again) | removed | container (of others)
        ("state", pa.string()),
        ("reason", pa.string()),  # why it is unreadable or skipped, "" otherwise
        ("detail", pa.string()),
        ("offset", pa.int64()),  # the byte where decoding stopped; null where that is not told
        ("sample_id", pa.string()),  # null when unreadable
        ("source", pa.string()),
        ("found_at", TIME),
        ("sidecar", pa.string()),  # names and generations of the sidecars that were read with it
    ],
    "samples": [
        ("sample_id", pa.string()),
        ("uri", pa.string()),  # where the bytes lie
        ("source_uri", pa.string()),  # where it was found first: another place when it was copied
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("captured_at", TIME),
        ("ingested_at", TIME),
        ("source", pa.string()),
        ("split", pa.string()),  # pool | holdout | reserved (of a holdout group, or a copy)
        ("group_key", pa.string()),
        ("fingerprint", pa.binary(32)),  # 256-bit perceptual hash
        ("sharpness", pa.float32()),
        ("brightness", pa.float32()),
        ("contrast", pa.float32()),
        # From here on null in rows that were written before schema version 3.
        ("size", pa.int64()),  # bytes on disk
        ("color_mode", pa.string()),  # grey | rgb | rgba | palette | cmyk, as it is stored
        ("saturation", pa.float32()),  # mean distance of strongest and weakest channel, 0 to 1
        ("entropy", pa.float32()),  # of the histogram of grey values, in bits
        ("pixels", pa.binary(16)),  # equal where the pictures are, at a reduced scale
        ("attached", pa.string()),  # what follows the picture in its file, "" for nothing
    ],
    # Small upright pictures, so that a page or a viewer need not read the originals.
    "thumbnails": [
        ("sample_id", pa.string()),
        ("image", pa.binary()),  # JPEG, or PNG where the picture has at most 64 pixels a side
    ],
    # One typed column a sidecar name is added as it appears; `raw` keeps what was read.
    "metadata": [("sample_id", pa.string()), ("raw", pa.string())],
    "labels": [
        ("sample_id", pa.string()),
        ("task", pa.string()),
        ("label", pa.string()),  # null when skipped
        ("boxes", BOXES),
        ("annotator", pa.string()),
        ("origin", pa.string()),  # import | oracle | csv | label_studio | model | skipped | …
        ("created_at", TIME),
        ("seconds", pa.float64()),  # that people took; null where nobody says
        ("n_annotations", pa.int32()),  # answers behind it; null for what was not asked by us
        ("quality", pa.float64()),  # of a consensus, in [0, 1]; null for a single answer
        ("model_id", pa.string()),  # whose automatic label it is; null for people's
    ],
    # Each person's answer as the tool gave it; what counts of them stands in `labels`.
    "annotations": [
        ("sample_id", pa.string()),
        ("provider", pa.string()),
        ("external_id", pa.string()),
        ("annotator", pa.string()),
        ("state", pa.string()),  # done | skipped | draft | rejected
        ("reason", pa.string()),  # why it is rejected, "" otherwise
        ("detail", pa.string()),
        ("task", pa.string()),
        ("label", pa.string()),
        ("boxes", BOXES),
        ("prelabel", pa.string()),  # what the model had put there
        ("seconds", pa.float64()),
        ("created_at", TIME),
        ("updated_at", TIME),
    ],
    # Samples that are labelled and worth asking about again, by ActiveLab's score.
    "relabels": [
        ("sample_id", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float64()),  # in [0, 1]; low: the label is worth asking about
        ("label", pa.string()),  # that is doubted
        ("suggested", pa.string()),  # what model and annotators together take it for
        ("model_id", pa.string()),
        ("selected_at", TIME),
    ],
    "label_requests": [
        ("sample_id", pa.string()),
        ("purpose", pa.string()),  # training | holdout | relabel | audit
        ("provider", pa.string()),
        ("external_id", pa.string()),
        ("requested_at", TIME),
        ("rank", pa.int32()),
        ("reason", pa.string()),
        ("answers", pa.int32()),  # how many different people have to answer; null: one
        ("recalled", pa.bool_()),  # taken back: nobody waits for it; null: no
    ],
    "predictions": [
        ("sample_id", pa.string()),
        ("model_id", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float32()),
        ("probabilities", PROBABILITIES),
        ("boxes", BOXES),
        ("predicted_at", TIME),
    ],
    "selections": list(_PICKS),
    # What a person selected outside of the rounds and gave a name.
    "named_selections": [("name", pa.string()), *_PICKS],
    "experiments": [
        ("model_id", pa.string()),
        ("arm", pa.string()),  # loop | random
        ("architecture", pa.string()),
        ("classes", pa.list_(pa.string())),
        ("parameters", pa.string()),  # JSON
        ("training_set", pa.string()),  # digest of the training set's rows
        ("n_labels", pa.int64()),
        ("uri", pa.string()),
        ("state", pa.string()),  # trained | passed | rejected | in_service | retired | rolled_back
        ("metrics", pa.string()),  # JSON: overall
        ("slices", pa.string()),  # JSON: [{column, value, n, accuracy, ...}]
        ("confusion", pa.string()),  # JSON: {classes, counts}
        ("trained_at", TIME),
    ],
    # What a training set held, row by row, so that it can be rebuilt to the byte.
    "training_sets": [
        ("training_set", pa.string()),
        ("sample_id", pa.string()),
        ("label", pa.string()),
        ("arm", pa.string()),
        ("position", pa.int64()),
        ("origin", pa.string()),  # model, where its label is automatic; null where it is a person's
    ],
    "confidences": [
        ("event_id", pa.string()),
        ("occurrence", pa.int32()),  # clients reuse ids: which inference with this id, by time
        ("row", pa.int32()),  # the image's place in its request
        ("occurred_at", TIME),
        ("namespace", pa.string()),
        ("endpoint", pa.string()),  # the InferenceService's name
        ("component", pa.string()),  # predictor | transformer | explainer
        ("route", pa.string()),  # the logger's own endpoint, such as default or canary
        ("model_name", pa.string()),
        ("model_id", pa.string()),
        ("protocol", pa.string()),
        ("sample_id", pa.string()),  # SHA-256 of the image bytes, null where it is not known
        ("tensor_sha256", pa.string()),
        # What names the sample: hash | header (X-Sample-Id) | embedding; null where nothing does,
        # and in rows that were written before schema version 5, which are by hash.
        ("linked_by", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float32()),
        ("probabilities", PROBABILITIES),
        ("classes", pa.list_(pa.string())),  # only where the reply itself names its columns
        ("boxes", BOXES),
        ("least_confidence", pa.float32()),
        ("margin", pa.float32()),
        ("entropy", pa.float32()),
        ("request_sha256", pa.string()),
        ("response_sha256", pa.string()),
        ("note", pa.string()),
    ],
    # The harvest's ledger: what was read of which object, and what became of each event.
    "harvest_ledger": [
        ("uri", pa.string()),
        ("bytes_read", pa.int64()),
        ("lines_read", pa.int64()),
        ("harvested_at", TIME),
        ("generation", pa.string()),  # of an object of the blob logger, null for a segment
    ],
    "harvest_events": [
        ("event_id", pa.string()),
        ("kind", pa.string()),  # request | response | unknown
        ("state", pa.string()),  # pending | harvested | duplicate | rejected | orphan | ignored
        ("reason", pa.string()),
        ("uri", pa.string()),
        ("line", pa.int64()),
        ("line_sha256", pa.string()),  # of what the event says: equal for each delivery of it
        ("occurred_at", TIME),
        ("received_at", TIME),
        ("decoded", pa.string()),  # JSON: what the event said, without pixels, to pair it later
    ],
    # The state of each check of each subject: ok | flagged | unreadable | no_picture | unchecked.
    "checks": [
        ("subject", pa.string()),  # sample_id, or the URI of what cannot be read or is a copy
        ("generation", pa.string()),  # of that URI, "" for a sample
        ("state", pa.string()),
        ("checked_at", TIME),
    ],
    "flags": [
        ("subject", pa.string()),
        ("subject_type", pa.string()),  # sample | file | model | endpoint | round
        ("stage", pa.string()),
        ("kind", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("evidence", pa.string()),  # JSON
        ("flagged_at", TIME),
    ],
    # The accuracy of deployed models, or why it cannot be told: the newest monitor's of each round.
    "estimates": [
        ("endpoint", pa.string()),
        ("model_id", pa.string()),
        ("harvested_in_round", pa.string()),  # the window; "" for all that was harvested
        ("method", pa.string()),  # confidences (CBPE) | random_picks (labels of the random share)
        ("label", pa.string()),  # of the answers of this class; null over all
        ("value", pa.float64()),  # share of right answers; null where it is refused
        ("low", pa.float64()),  # 95% interval
        ("high", pa.float64()),
        ("n", pa.int64()),  # inferences, or labels, behind it
        ("state", pa.string()),  # answered | refused
        ("reason", pa.string()),  # why it is refused, "" otherwise
        ("evidence", pa.string()),  # JSON
        ("estimated_at", TIME),
    ],
    "rounds": [
        ("state", pa.string()),  # running | waiting | done
        ("outcome", pa.string()),  # "" | published | kept
        ("holder", pa.string()),  # JSON: who holds the round's lease
        ("opened_at", TIME),
        ("updated_at", TIME),
        ("counts", pa.string()),  # JSON
    ],
    "decisions": [
        ("decision", pa.string()),  # gate | publish | rollback | watch | random_share | …
        ("subject", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("inputs", pa.string()),  # JSON
        ("decided_at", TIME),
    ],
    # Samples that were erased: not which they were, but enough to know one that comes again.
    "erased": [
        ("tombstone", pa.string()),  # stands for the id in `training_sets`; or `erased-file`
        ("digest", pa.string()),  # SHA-256 of the salt and the sample's id, or with a file's place
        ("salt", pa.string()),  # of the lake, the same in every row
        ("erased_at", TIME),
    ],
    # The version row is written last: what has none is invisible.
    "stage_runs": [
        ("sequence", pa.int64()),
        ("version", pa.string()),
        ("tables", pa.string()),  # JSON: {table: snapshot id}
        ("stage", pa.string()),
        ("base_version", pa.string()),
        ("started_at", TIME),
        ("finished_at", TIME),
        ("inputs", pa.string()),  # JSON
        ("outputs", pa.string()),  # JSON
        ("counts", pa.string()),  # JSON: in = ok + flagged + unreadable + skipped
        ("program", pa.string()),  # the visionloop that ran it; null before schema version 2
    ],
}

EMBEDDINGS_PREFIX = "embeddings_"
ERASED = "erased"


def arrow_schema(table: str, *, dimension: int | None = None) -> pa.Schema:
    """Return the Arrow schema of a table.

    Args:
        table: A name of `TABLES`, or ``embeddings_<space>``.
        dimension: Number of float32 components, needed for an embeddings table.

    Raises:
        InputError: The lake has no table of that name.
    """
    if table.startswith(EMBEDDINGS_PREFIX):
        if dimension is None:
            raise InputError(f"table {table!r} needs the dimension of its vectors")
        columns = [("sample_id", pa.string()), ("vector", pa.binary(4 * dimension))]
    elif table in TABLES:
        columns = list(TABLES[table])
    else:
        raise InputError(
            f"the lake has no table {table!r}", remedy=f"Use one of {', '.join(sorted(TABLES))}"
        )
    return pa.schema([*columns, *WRITTEN_BY])
