"""The one scale at which tier cpu trains language models from scratch: 20 tokens per block parameter.

A dense model is ahead of one of 30 % its size only when it has seen enough text; on 0.2 to 5 tokens per parameter both
are equally good, and nothing about shrinking can be decided. 20 is the ratio that compute-optimal training asks for
(arXiv 2203.15556). All experiments of tier cpu about a GPT-2 from scratch have this model, text and schedule, so that a
cell that two of them share is run once.
"""

from __future__ import annotations

from benchmarks.experiment import MethodRef
from benchmarks.specs.language import DataSpec, ProtocolSpec
from benchmarks.specs.pretrained import NamedModel
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSpec

TARGETS = (0.5, 0.3)
"""Shares of the block parameters: this model is then 1.6 and 2.2 times smaller as a whole, as in the paper's table."""

TOKENS_PER_PARAMETER = 20
STEPS = 3_906
"""20 tokens for each of 199,936 block parameters, 1,024 tokens per step."""

ONE_CUT = {"ecospa_at_start": "start", "ecospa_at_end": "end"}
ECOSPA = "baselines.coupled_sparsity:EcoSpa"


def scale(learning_rate: float, split: str = "test") -> Scale:
    """Model, text and training of every run.

    Args:
        learning_rate: peak; experiment learning_rates says how those of the arms were chosen.
        split: held-out text; "validation" is for choosing rates, "test" for all that is reported.
    """
    return Scale(
        NamedModel(layers=4, width=64, heads=2, vocabulary=768, positions=128, name="GPT-2, 4 layers"),
        DataSpec("opendocs", "default", train_bytes=24_000_000, evaluation_tokens=100_000),
        ProtocolSpec("bpe-768", sequence_length=128, stride=127, split=split),
        TrainingSpec(STEPS, batch_size=8, learning_rate=learning_rate, micro_batch_size=8, warmup_steps=195),
        start_step=195, end_step=2_930, interval=68, width_multiple=4,
    )  # fmt: skip


def schedule(method: MethodRef, made: Scale) -> tuple[MethodRef, dict[str, int]]:
    """Class and schedule of an arm: two of them are EcoSpa with a single event, where the others begin or end."""
    where = ONE_CUT.get(method.name)
    if where is None:
        return method, {}
    step = made.end_step if where == "end" else made.start_step + made.interval
    return MethodRef(method.name, ECOSPA), {"start_step": step - made.interval, "end_step": step}
