"""Settings that runs must have in common to stand in one table, and for how long they were trained."""

from __future__ import annotations

import json

from results import RunRecord

SAME_MODEL_AND_DATA = ("model", "data", "protocol")
TRAINING = ("steps", "batch_size")
"""Settings of training that must agree: a learning rate belongs to a method, as GaLore's own does."""
TWICE = "dense_twice_steps"


def context(record: RunRecord) -> str:
    """Return what runs of one table have in common, as one text: model, data, protocol, and the data themselves."""
    parts = {part: record.config.get(part) for part in SAME_MODEL_AND_DATA}
    return json.dumps([parts, record.data_fingerprint], sort_keys=True)
