"""Importance and scores from outside: used, kept over a resume, and refused where they do not fit."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import ecospa
from ecospa.sparsifier import norm_products
from tests.ecospa.loops import make, step
from tests.ecospa.trainer_runs import CONFIG, Rows, model_of, same, trainer_of, weights


class AbsoluteGradient(ecospa.CoupledEstimator):
    """The mean absolute gradient."""

    def step_sums(self, weights: list[torch.Tensor], gradients: list[torch.Tensor]) -> torch.Tensor:
        """sum_ij |dL/dW_ij| of every matrix."""
        return torch.stack([gradient.abs().sum().double() for gradient in gradients])


class LastPairsFirst:
    """An importance that is no gradient: the later a pair comes, the less it matters; the last at zero."""

    steps = 1

    def __init__(self, model: torch.nn.Module, pairs: Sequence[ecospa.CoupledPair]) -> None:
        self.rebind(pairs)

    def update(self) -> None: ...

    def importances(self) -> Mapping[str, float]:
        return {name: float(max(0, 3 - number)) for number, name in enumerate(self.names)}

    def rebind(self, pairs: Sequence[ecospa.CoupledPair]) -> None:
        self.names = [pair.name for pair in pairs]

    def mark(self) -> None: ...

    def rewind(self, mark: None) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def second_matrix(model: torch.nn.Module, pairs: Sequence[ecospa.CoupledPair]) -> dict[str, torch.Tensor]:
    """Norms of the second matrix alone."""
    return {pair.name: ecospa.sparsifier.side_norms(model, pair, "right") for pair in pairs}


def attached(resume: Any = None, model: Any = None, config: Any = None, **given: Any) -> Any:
    """A model, its optimizer and a CoupledSparsity with an importance of its own."""
    fresh, _, plain = make(interval=2, **(config or {}))
    plain.release()
    model = fresh if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return model, optimizer, ecospa.CoupledSparsity(model, optimizer, plain.config, resume=resume, **given)


def trained(steps: int = 8, **given: Any) -> Any:
    model, optimizer, sparsity = attached(**given)
    for _ in range(steps):
        step(model, optimizer, sparsity)
    return model, sparsity


def widths(sparsity: Any) -> list[Any]:
    return [event.widths for event in sparsity.history]


def test_the_defaults_are_those_of_the_library() -> None:
    model, sparsity = trained()
    by_class, _ = trained(estimator=ecospa.CoupledEstimator, scorer=norm_products)
    assert len(sparsity.history) > 3
    assert same(list(model.state_dict().values()), list(by_class.state_dict().values()))


def test_an_estimator_may_be_made_beforehand() -> None:
    whole = ecospa.CoupledEstimator
    made: list[Any] = []

    def maker(model: Any, pairs: Any) -> Any:
        made.append(whole(model, pairs))
        return made[-1]

    model, optimizer, sparsity = attached(estimator=maker)
    assert sparsity.estimator is made[0]
    sparsity.release()
    own = whole(model, ecospa.coupled_pairs(model))
    again = ecospa.CoupledSparsity(model, optimizer, sparsity.config, estimator=own)
    assert again.estimator is own and own.steps == 0


def test_another_importance_cuts_other_pairs() -> None:
    _, plain = trained()
    _, other = trained(estimator=LastPairsFirst)
    assert other.reached and widths(plain) != widths(other)
    first = other.history[1].widths
    changed = [name for name in first if first[name] != other.history[0].widths[name]]
    names = list(first)
    assert {*names[3:5]} <= set(changed) <= {*names[2:]}  # three at zero, and nobody warns that gradients are


def test_another_score_keeps_other_indices() -> None:
    plain, _ = trained(4)
    scored, sparsity = trained(4, scorer=second_matrix)
    assert len(sparsity.history) > 1
    assert not same(list(plain.state_dict().values()), list(scored.state_dict().values()))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "scores lacks transformer.h.0.attn.qk"),
        (None, "scores is a NoneType"),
        ({"transformer.h.0.attn.qk": torch.ones(1, 1)}, r"scores\['transformer.h.0.attn.qk'\] is torch.float32"),
    ],
)
def test_scores_that_do_not_fit_cut_nothing(scores: Any, message: str) -> None:
    model, optimizer, sparsity = attached(scorer=lambda model, pairs: scores if not scores else full(model, pairs))

    def full(model: Any, pairs: Any) -> Any:
        return {**norm_products(model, pairs), **scores}

    shapes = [parameter.shape for parameter in model.parameters()]
    step(model, optimizer, sparsity)
    with pytest.raises(ecospa.ConfigError, match=message):
        step(model, optimizer, sparsity)
    assert [parameter.shape for parameter in model.parameters()] == shapes and sparsity.next_event == 4


def test_two_estimators_at_once_are_refused() -> None:
    model, optimizer, sparsity = attached()
    sparsity.release()
    config = ecospa.EcoSpaConfig(estimator="adam", target_scope="blocks", width_multiple=2)
    with pytest.raises(ecospa.ConfigError, match=r"config.estimator is 'adam' and another estimator is given"):
        ecospa.CoupledSparsity(model, optimizer, config, estimator=AbsoluteGradient)


def test_a_resumed_run_goes_on_with_its_estimator_and_refuses_another(tmp_path: Path) -> None:
    given = {"estimator": AbsoluteGradient, "scorer": second_matrix}
    whole, _ = trained(8, **given)
    half, sparsity = trained(5, **given)
    state = json.loads(json.dumps(sparsity.state_dict()))
    sparsity.release()
    for estimator in (None, ecospa.CoupledEstimator, LastPairsFirst):
        name = "CoupledEstimator" if estimator is None else estimator.__name__
        with pytest.raises(ecospa.ConfigError, match=f"estimator is a {name}, .* started with a AbsoluteGradient"):
            attached(model=copy.deepcopy(half), resume=state, estimator=estimator)
    model, optimizer, again = attached(model=half, resume=state, **given)
    for _ in range(3):
        step(model, optimizer, again)
    assert same(list(model.state_dict().values()), list(whole.state_dict().values()))


def test_a_state_of_an_earlier_release_is_one_of_the_coupled_estimator() -> None:
    model, sparsity = trained(3)
    state = sparsity.state_dict()
    sparsity.release()
    del state["estimator_class"]
    with pytest.raises(ecospa.ConfigError, match=r"is a AbsoluteGradient, .* started with a CoupledEstimator"):
        attached(model=model, resume=state, estimator=AbsoluteGradient)
    assert attached(model=model, resume=state)[2].step == 3


def test_a_loop_may_count_its_steps_itself() -> None:
    model, _, sparsity = attached(estimator=LastPairsFirst, config={"start_step": 1})
    sparsity.after_step(2)  # nothing has stepped
    assert sparsity.step == 2 and len(sparsity.history) == 1
    sparsity.after_step(3)
    assert [event.step for event in sparsity.history] == [0, 3]
    assert [pair.width for pair in ecospa.coupled_pairs(model)] == list(sparsity.history[-1].widths.values())


def test_gradients_before_the_start_do_not_count_by_the_loops_own_steps() -> None:
    model, _, sparsity = attached(config={"start_step": 4})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    sparsity.after_backward(3)
    assert sparsity.estimator.steps == 0
    sparsity.after_backward(4)
    assert sparsity.estimator.steps == 1


def test_a_trainer_takes_both_and_resumes_with_them(tmp_path: Path) -> None:
    given = {"estimator": AbsoluteGradient, "scorer": second_matrix}
    runs = []
    for name, own in (("own", given), ("plain", {})):
        trainer = trainer_of(tmp_path / name, **own)
        trainer.train()
        runs.append(trainer)
    assert isinstance(runs[0].ecospa.sparsity.estimator, AbsoluteGradient)
    assert not same(weights(runs[0]), weights(runs[1]))
    again = trainer_of(tmp_path / "own", **given)
    again.train(resume_from_checkpoint=str(tmp_path / "own" / "checkpoint-4"))
    assert same(weights(again), weights(runs[0]))
    with pytest.raises(ecospa.ConfigError, match=r"is a CoupledEstimator, .* started with a AbsoluteGradient"):
        trainer_of(tmp_path / "own").train(resume_from_checkpoint=str(tmp_path / "own" / "checkpoint-4"))


def test_a_callback_takes_both(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    callback = ecospa.EcoSpaCallback(CONFIG, estimator=AbsoluteGradient, scorer=second_matrix)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=4, use_cpu=True, report_to="none",
        disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    Trainer(model_of("gpt2"), arguments, train_dataset=Rows(), callbacks=[callback]).train()
    assert callback.sparsity is not None and callback.sparsity.reached
    assert isinstance(callback.sparsity.estimator, AbsoluteGradient)


class SumOfAll(ecospa.CoupledEstimator):
    """One number for all matrices, where one for each is asked for."""

    def step_sums(self, weights: list[torch.Tensor], gradients: list[torch.Tensor]) -> Any:
        """Return a float."""
        return float(sum(gradient.abs().sum() for gradient in gradients))


class OfNothing:
    """A class that takes no model."""


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ("taylor", r"estimator is 'taylor', which has no steps, update, importances"),
        (OfNothing, r"OfNothing.*which cannot be called with \(model, pairs\); give a subclass of CoupledEstimator"),
        (lambda model, pairs: len(pairs), r"estimator is \d+, which has no steps"),
    ],
)
def test_what_is_no_estimator_is_refused_by_name(estimator: Any, message: str) -> None:
    with pytest.raises(ecospa.ConfigError, match=message):
        attached(estimator=estimator)


def test_one_number_for_all_matrices_is_refused() -> None:
    model, optimizer, sparsity = attached(estimator=SumOfAll)
    with pytest.raises(ValueError, match=r"step_sums of SumOfAll returned .*; it must return one number per matrix"):
        step(model, optimizer, sparsity)
