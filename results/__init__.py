"""The measured facts: one run of one experiment is one JSON file, written once and never edited.

Every number that a table or plot of this project prints as measured comes from such a file, so anyone can go from a
cell back to the command, the commit and the device that produced it. Standard library only: facts must stay readable
without the software that made them; `frame` alone needs pandas, which it imports when it is called. Bookkeeping of the
suite; no part of the paper.
"""

from results.plan_history import PlanEvent
from results.record import SCHEMA_VERSION, MethodInfo, Metric, RunRecord, config_hash, new_id
from results.store import Store
from results.strict import RecordError
from results.table import frame

__all__ = [
    "SCHEMA_VERSION",
    "MethodInfo",
    "Metric",
    "PlanEvent",
    "RecordError",
    "RunRecord",
    "Store",
    "config_hash",
    "frame",
    "new_id",
]
