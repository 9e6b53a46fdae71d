"""A baseline: one cut in the middle of training."""

import ecospa
from baselines import TrainingMethod
from baselines.method import size_entry


class HalfTime(TrainingMethod):
    """Cut once by the norms of the weights, after half of the steps."""

    name = "half_time"
    title = "half-time cut"
    removes = "structures"
    group = "one of each"

    def after_step(self, state):
        if state.step == self.budget.total_steps // 2:
            plan = ecospa.plan_shrink(state.model, self.budget.target_size, target_scope=self.budget.target_scope)
            ecospa.apply_plan(state.model, plan, state.optimizer)
            self.history.append(size_entry(state.step, state.model))
