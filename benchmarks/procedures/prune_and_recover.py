"""Cuts a pretrained model event by event and lets it recover: the work of experiments/pretrained_shrink.py.

A plain PyTorch loop around ecospa.CoupledSparsity, as a practitioner would write it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import set_seed

import ecospa
from baselines.method import Budget
from benchmarks.data.text.packing import evaluation_windows, training_sequences
from benchmarks.data.text.tokenized import prepare
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics import model_metrics
from benchmarks.metrics.perplexity import HeldOut
from benchmarks.models.language import silence_transformers
from benchmarks.pretrained import loading
from benchmarks.pretrained.stories import held_out_text, sample_stories
from benchmarks.specs.pretrained import FoundationSpec
from benchmarks.specs.prune_and_recover import PretrainedSettings, RecoverySpec
from results.plan_history import PlanEvent
from results.record import Metric

_SMOOTHING = 20  # steps behind one point of the loss curve


@dataclass
class Stages:
    """Measurements at every size, filled in while the model shrinks."""

    held_out: HeldOut
    settings: PretrainedSettings
    blocks: int
    rows: list[dict[str, Any]] = field(default_factory=list)

    def cut(self, model: nn.Module) -> None:
        """The model has just been cut (or is still whole)."""
        self.rows.append(
            {
                "size": self._planned_size(),
                "block_share": ecospa.accounting.parameters(model, scope="blocks") / self.blocks,
                "parameters": ecospa.accounting.parameters(model),
                "perplexity_cut": self.held_out.perplexity(model),
            }
        )

    def recovered(self, model: nn.Module) -> None:
        """The recovery steps of the present size are done."""
        self.rows[-1]["perplexity_recovered"] = self.held_out.perplexity(model)

    def _planned_size(self) -> float:
        """Share that the linear curve asks for: the same for every seed, where the real one differs by a width step."""
        shrink = self.settings.shrink
        events = (shrink.end_step - shrink.start_step) // shrink.interval
        target = shrink.target_size or 1.0
        return round(1 - (1 - target) * min(len(self.rows) / events, 1.0), 4)


def execute(run: Run, context: RunContext) -> RunResult:
    """Cut, recover, and tell a story before and after.

    Raises:
        MissingSourceError: weights or stories are not at hand.
    """
    settings: PretrainedSettings = run.cell.settings
    torch.set_num_threads(context.threads)
    silence_transformers()
    foundation = loading.find(FoundationSpec(settings.model), run.cell.tier, context)
    tokenizer, model = foundation.tokenizer, foundation.build()
    set_seed(run.seed)
    text_before = _tell(model, tokenizer, settings)
    text, held_out, source = _text(model, foundation, settings, run.cell.tier, context)
    total = 2 * settings.shrink.total_steps
    control, _, _ = _train(
        foundation.build(), text, settings, run.seed, None, lambda step: context.progress(step, total)
    )
    stages = Stages(held_out, settings, ecospa.accounting.parameters(model, scope="blocks"))
    before = held_out.perplexity(model)
    offset = settings.shrink.total_steps
    model, history, curve = _train(
        model, text, settings, run.seed, stages, lambda step: context.progress(offset + step, total)
    )
    final = held_out.predict(model)
    metrics = {
        **held_out.metrics(final),
        **model_metrics(model),
        "perplexity_before": _perplexity(before),
        "perplexity_cut": _perplexity(stages.rows[-1]["perplexity_cut"]),
        "perplexity_recovered": _perplexity(stages.rows[-1]["perplexity_recovered"]),
        "perplexity_dense_same_steps": _perplexity(held_out.perplexity(control)),
        "shrink_events": Metric(float(len(history) - 1), "events", None),
    }
    payload = {
        "stages": stages.rows,
        "prompt": settings.prompt,
        "text_before": text_before,
        "text_after": _tell(model, tokenizer, settings),
        "recovery_text": source,
    }
    return RunResult(metrics, held_out.fingerprint, history, curve, payload)


def _text(
    model: nn.Module, foundation: loading.Foundation, settings: PretrainedSettings, tier: str, context: RunContext
) -> tuple[Tensor, HeldOut, str]:
    """Text to recover on, int64 (sequences, length), text to be judged by, and where the first comes from."""
    training, protocol = settings.training, settings.protocol
    if isinstance(training, RecoverySpec):
        held_out = held_out_text(settings.data, protocol, foundation.tokenizer, tier)
        told = sample_stories(model, training.stories, training.story_tokens, int(foundation.tokenizer.bos_token_id))
        return told, held_out, "sampled from the whole model at temperature 1"
    text = prepare(settings.data, protocol, tier, context.folder, foundation.place)
    windows = evaluation_windows(text.evaluation, protocol.sequence_length, protocol.stride)
    fingerprint = hashlib.sha256(f"{text.fingerprint} {foundation.fingerprint}".encode()).hexdigest()
    return (
        torch.from_numpy(training_sequences(text.train, protocol.sequence_length).astype("int64")),
        HeldOut(*windows, text.words, text.size, fingerprint),
        f"{settings.data.source} {settings.data.configuration}, training side",
    )


def _train(
    model: nn.Module,
    text: Tensor,
    settings: PretrainedSettings,
    seed: int,
    stages: Stages | None,
    progress: Callable[[int], None],
) -> tuple[nn.Module, tuple[PlanEvent, ...], tuple[tuple[int, float], ...]]:
    """Train on the text; with `stages` the model is cut on the way and measured around every cut."""
    training, shrink = settings.training, settings.shrink
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    sparsity = (
        None if stages is None else ecospa.CoupledSparsity(model, optimizer, Budget(**asdict(settings.shrink)).config())
    )
    losses: list[float] = []
    curve: list[tuple[int, float]] = []
    if stages is not None:
        stages.cut(model)
    model.train()
    for step, batch in enumerate(_batches(text, training.batch_size, shrink.total_steps, seed), start=1):
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        if sparsity is not None:
            sparsity.after_backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if sparsity is not None and stages is not None:
            _after_step(model, sparsity, stages, step)
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if step % _SMOOTHING == 0:
            curve.append((step, sum(losses[-_SMOOTHING:]) / _SMOOTHING))
        progress(step)
    if stages is not None:
        stages.recovered(model)
    events = () if sparsity is None else sparsity.history
    history = tuple(PlanEvent(e.step, e.parameters, e.block_parameters, dict(e.widths)) for e in events)
    return model, history, tuple(curve)


def _after_step(model: nn.Module, sparsity: ecospa.CoupledSparsity, stages: Stages, step: int) -> None:
    """Let the model be cut, and measure it before and after if an event is due."""
    if sparsity.next_event == step:
        stages.recovered(model)
    events = len(sparsity.history)
    sparsity.after_step()
    if len(sparsity.history) > events:
        stages.cut(model)


@torch.no_grad()
def _tell(model: Any, tokenizer: Any, settings: PretrainedSettings) -> str:
    """The prompt, continued greedily."""
    model.eval()
    prompt = tokenizer(settings.prompt, return_tensors="pt")
    tokens = model.generate(
        **prompt, max_new_tokens=settings.generated_tokens, do_sample=False, pad_token_id=tokenizer.bos_token_id
    )
    return str(tokenizer.decode(tokens[0], skip_special_tokens=True))


def _batches(text: Tensor, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield text[torch.randint(len(text), (size,), generator=generator)]


def _perplexity(value: float) -> Metric:
    return Metric(value, "per token", False)
