"""A metric: the widest pair of the final model."""

from ecospa import coupled_pairs
from results.record import Metric


def of_model(model, method):
    return {"widest_pair": Metric(float(max(pair.width for pair in coupled_pairs(model))), "indices", False)}
