"""An importance: the pairs with the fewest weights are cut."""

from baselines.curve import SizeCurve
from baselines.method import TrainingMethod
from ecospa import coupled_pairs


class SizeImportance(TrainingMethod):
    """Cut the pairs with the fewest weights."""

    name = "importance_size"
    title = "number of weights"
    removes = "structures"
    group = "importance metric"

    def __init__(self, budget):
        super().__init__(budget, SizeCurve(budget, self._rank))

    def _rank(self, event):
        return {pair.name: float(pair.groups * pair.width) for pair in coupled_pairs(event.state.model)}
