"""Settings that runs must have in common to stand in one table, and for how long they were trained."""

from __future__ import annotations

import json
from collections.abc import Sequence

from results import RunRecord

SAME_MODEL_AND_DATA = ("model", "data", "protocol")
TRAINING = ("steps", "batch_size")
"""Settings of training that must agree: a learning rate belongs to a method, as GaLore's own does."""
TWICE = "dense_twice_steps"


def context(record: RunRecord) -> str:
    """Return what runs of one table have in common, as one text: model, data, protocol, and the data themselves."""
    parts = {part: record.config.get(part) for part in SAME_MODEL_AND_DATA}
    return json.dumps([parts, record.data_fingerprint], sort_keys=True)


def from_weights(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records of models that start from trained weights, where there are any; else all.

    An encoder that starts from nothing masters no task of GLUE or SQuAD, however many runs it has.
    """
    trained = [record for record in records if (record.config.get("model") or {}).get("weights")]
    return trained or list(records)
