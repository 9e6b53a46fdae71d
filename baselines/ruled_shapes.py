"""Fresh models whose shape a simple rule gives: what a shape that was searched for has to beat.

`small_dense` is the rule that gives every pair the same share. These two use what EcoSpa tends to leave of a small
language model, wide first layers, without having trained anything.

Source: rules of this suite; widths that change linearly with depth are those of OpenELM (Mehta et al., arXiv
2404.14619), which widens.
Equations:
    linear_taper           share(block l of L) ~ 1 + (last - 1) l / (L - 1), last = 0.25
    feed_forward_first     attention at its narrowest, feed-forward layers kept from the first block on
Faithful: the same size within one width step, all steps of the run, a fresh initialisation by the architecture's own
rule (baselines.small_dense).
Simplified: no rule looks at the model, the data or the target but for the size.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from baselines.method import TrainingMethod
from baselines.small_dense import start_small
from ecospa import shape_rules


class LinearTaper(TrainingMethod):
    """Trains a model of the target size whose widths fall linearly with depth."""

    name: ClassVar[str] = "linear_taper"
    title = "linear taper"
    removes = "nothing"
    group = "dense control"
    reads_gradients: ClassVar[bool] = False

    def prepare(self, model: nn.Module, calibration: Any = None) -> nn.Module:
        """A fresh model of the target size.

        Raises:
            ConfigError: the target cannot be reached, or the model cannot be built anew.
        """
        return start_small(self, model, shape_rules.linear_taper(model, self.budget.config()))


class FeedForwardFirst(TrainingMethod):
    """Trains a model of the target size whose feed-forward layers are those of its first blocks."""

    name: ClassVar[str] = "feed_forward_first"
    title = "feed-forward first"
    removes = "nothing"
    group = "dense control"
    reads_gradients: ClassVar[bool] = False

    def prepare(self, model: nn.Module, calibration: Any = None) -> nn.Module:
        """A fresh model of the target size.

        Raises:
            ConfigError: the target cannot be reached, or the model cannot be built anew.
        """
        return start_small(self, model, shape_rules.feed_forward_first(model, self.budget.config()))
