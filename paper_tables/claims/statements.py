"""The claims: the paper's headlines, the paper's thesis at a scale that can be run, and the two controls.

The controls, a dense model at equal steps and a smaller dense model of equal size from scratch, are what the reviews of
the paper's earlier version asked for. Adding a claim is adding a line here.
"""

from __future__ import annotations

from collections.abc import Callable

from paper_tables.analysis.fine_tuning_grid import GRIDS
from paper_tables.analysis.formats import share
from paper_tables.claims import published
from paper_tables.claims.grid_judges import smaller_k_is_better
from paper_tables.claims.judges import (
    HALF,
    Setting,
    against_dense,
    aligned_error_below,
    infers_faster,
    steps_faster_than_aligned,
)
from paper_tables.claims.method import method_claims
from paper_tables.claims.pretraining_judges import smaller_beats
from paper_tables.claims.published import PublishedNumber
from paper_tables.claims.quality_judges import (
    LLAMA,
    beats,
    beats_fine_tuned,
    changes_when_cut,
    grows_when_cut,
    on_largest_model,
)
from paper_tables.claims.thesis import TARGETS, mechanical_claims, thesis_claims
from paper_tables.claims.verdicts import Claim, Controls, Judge

_SUMMARY = "summary of the paper [S]"
_CONTROL = "control asked for by the reviews [R]"
_OWN = "this project's own control"
_INFERRED = "the paper's sizes are those of The LLM Surgeon's table, so this is its likely baseline [I]"
_TIME = "LLaMA-1B on C4, large GPUs for days: python -m benchmarks run llama_pretraining --tier paper"
_MEMORY = "a GPU: python -m benchmarks run training_memory --tier gpu"
_SPEED = "a GPU: python -m benchmarks run inference_speed --tier gpu"
_STEP = "a GPU: python -m benchmarks run training_speed --tier gpu"
_ALIGNED = "the dense model at aligned widths"
_MEMORY_SETTINGS = {"smoke": Setting(4, 64), "cpu": Setting(16, 128), "gpu": Setting(64, 256)}
"""The batch and length of training_memory, without a budget: the paper names neither."""
_STEP_SETTINGS = {"cpu": Setting(4, 128), "gpu": Setting(32, 256)}
"""The usual batch and length of training_speed."""
_SPEED_SETTINGS = {"smoke": Setting(2, 32), "cpu": Setting(8, 96), "gpu": Setting(16, 192)}
"""The usual batch and length of inference_speed: the paper names neither."""


def claims() -> tuple[Claim, ...]:
    """Return all claims, the headlines first."""
    method = (*method_claims(), *_sensitivity(), *mechanical_claims())
    return (*_headlines(), *thesis_claims(), *_appendix(), *_pretrained(), *_from_scratch(), *_fine_tuned(), *method)


def _headlines() -> tuple[Claim, ...]:
    memory, time = published.LLAMA_1B_MEMORY, published.LLAMA_1B_TIME
    perplexity, speed = published.GPT2_MEDIUM_PERPLEXITY, published.INFERENCE_SPEED
    of_llama = _controls(lambda other: on_largest_model(beats(other, HALF, LLAMA)))
    of_gpt2 = _controls(lambda other: smaller_beats(other, 2.2, "GPT-2-Medium"))
    return (
        _headline(
            "LLaMA-1B trains in half the GPU memory",
            memory,
            on_largest_model(
                against_dense(
                    *(memory, "training_memory", "peak_memory", _MEMORY),
                    as_ratio=True,
                    at_scale=("gpu", "paper"),
                    beside=(("on average over the run", "mean_memory"), ("after the last cut", "steady_memory")),
                    settings=_MEMORY_SETTINGS,
                ),
                *("training_memory", "llama"),
            ),
            of_llama,
        ),
        _headline(
            "LLaMA-1B trains in 21% less time",
            time,
            on_largest_model(against_dense(time, LLAMA, "training_seconds", _TIME, as_ratio=True)),
            (
                *of_llama,
                (_ALIGNED, steps_faster_than_aligned(time, "training_speed", "llama", _STEP, _STEP_SETTINGS)),
            ),
            mechanical=True,
        ),
        _headline(
            "GPT-2-Medium, 2.2 times smaller, has 2.4 lower perplexity than dense at twice the steps",
            perplexity,
            smaller_beats("dense_twice_steps", 2.2, "GPT-2-Medium", perplexity),
            of_gpt2,
            inferred="; baseline [I]",
        ),
        _headline(
            "The shrunk model infers 1.6 times faster",
            speed,
            infers_faster(speed, "inference_speed", "llama", _SPEED, _SPEED_SETTINGS),
            (
                *of_llama,
                (_ALIGNED, infers_faster(speed, "inference_speed", "llama", _SPEED, _SPEED_SETTINGS, aligned=True)),
            ),
            mechanical=True,
        ),
    )


def _headline(
    statement: str,
    number: PublishedNumber,
    judge: Judge,
    controls: Controls,
    *,
    inferred: str = "",
    mechanical: bool = False,
) -> Claim:
    source, said = number.reference + inferred, f"{number.metric} {number.value:g}"
    return Claim(statement, source, said, True, judge, controls, mechanical=mechanical)


def _controls(judge: Callable[[str], Judge]) -> Controls:
    """Return the two controls of a headline: what the model that is small and fast is worth against each."""
    return (("dense at equal steps", judge("dense")), ("small dense of equal size", judge("small_dense")))


def _appendix() -> tuple[Claim, ...]:
    return tuple(
        Claim(
            f"Removing aligned indices errs less than {text}, for every kind of matrix and every share",
            source,
            "smaller error",
            False,
            aligned_error_below(removal),
        )
        for removal, text, source in (
            ("misaligned", "removing mismatched ones", "summary of the paper, Appendix A [S]"),
            ("random", "removing random aligned ones", _OWN),
        )
    )


def _pretrained() -> tuple[Claim, ...]:
    return (
        Claim(
            "Short training after each cut of a pre-trained model wins perplexity back",
            _SUMMARY,
            "lower perplexity",
            False,
            changes_when_cut("perplexity_recovered", "perplexity_cut"),
        ),
        Claim(
            "The perplexity of a pre-trained model grows as it is cut to 50%",
            "summary of the paper, Table 5 [S]",
            "higher perplexity",
            False,
            changes_when_cut("perplexity_before", "perplexity_recovered"),
        ),
    )


def _from_scratch() -> tuple[Claim, ...]:
    rows = (
        ("dense", "the dense model at equal steps", _CONTROL),
        ("small_dense", "a small dense model of equal size from scratch", _CONTROL),
        ("small_dense_equal_flops", "a small dense model at equal training FLOPs", _CONTROL),
        ("uniform_pairs", "narrowing every pair alike on the same curve", _OWN),
        ("final_shape", "a fresh model in the final shape at equal steps", _OWN),
    )
    return tuple(
        Claim(
            f"A LLaMA shrunk from scratch to {share(target)} beats {text} (the largest model)",
            source,
            "lower perplexity",
            False,
            on_largest_model(beats(other, target, LLAMA)),
        )
        for target in TARGETS
        for other, text, source in rows
    )


def _fine_tuned() -> tuple[Claim, ...]:
    table = "summary of the paper, Table 5 [S]"
    rows = (
        ("surgeon", "K-OBD (cut first, then as many steps)", _INFERRED),
        ("llm_pruner", "LLM-Pruner (cut first, then adapters)", _OWN),
        ("dense", "the dense model at equal steps", _CONTROL),
        ("random_pairs", "random aligned removal on the same curve", _OWN),
    )
    made = [
        Claim(
            f"Fine-tuned to {share(target)}, a LLaMA shrunk by EcoSpa beats {text}",
            said,
            "lower perplexity",
            False,
            beats_fine_tuned(other, target),
        )
        for target in (0.8, 0.5)
        for other, text, said in rows
    ]
    grows = "The perplexity of a LLaMA that shrinks while it is fine-tuned grows from 80% to 50%"
    return (*made, Claim(grows, table, "higher perplexity", False, grows_when_cut(0.8, 0.5)))


def _sensitivity() -> tuple[Claim, ...]:
    return tuple(
        Claim(
            f"In fine-tuning a smaller K is better (BERT on {grid.task}, K 0.10 against 0.50, at equal final size)",
            "summary of the paper, Appendix C.1 [S]",
            f"higher {grid.named}",
            False,
            smaller_k_is_better(grid),
        )
        for grid in GRIDS
    )
