"""GPT-2 pre-training, measures of importance, K and theta: their cells say what they should, and run at toy size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import baselines
from baselines.coupled_sparsity import EcoSpaSpaced
from benchmarks import registry
from benchmarks.execution import recording
from benchmarks.experiment import Cell, MethodRef, Run
from benchmarks.experiments import coupled_vs_uncoupled, gpt2_pretraining, k_theta_sweep
from benchmarks.specs.matched import CONTROLS
from benchmarks.specs.pretrained import FineTuning, TrainedModel
from benchmarks.specs.training import TrainingSettings
from benchmarks.tasks import trained_language_model
from benchmarks.training.methods import build_method
from ecospa.accounting import parameters
from paper_tables.analysis import shared_cells
from tests.baselines.runs import BUDGET, largest_step, tiny_gpt2
from tests.baselines.runs import Run as SmallRun
from tests.benchmarks.tiny_runs import run_context, settings, train, use_tiny_text


def cells(name: str, tier: str, *methods: str) -> tuple[Cell, ...]:
    return registry.experiment(name).cells(tier, tuple(MethodRef(method) for method in methods))  # type: ignore[arg-type]


def test_twice_the_steps_is_dense_and_nothing_else_differs() -> None:
    dense, twice = cells("gpt2_pretraining", "cpu", "dense", "dense_twice_steps")
    one, two = dense.settings, twice.settings
    assert two.training.steps == 2 * one.training.steps
    assert replace(two.training, steps=one.training.steps) == one.training
    assert (two.model, two.data, two.protocol) == (one.model, one.data, one.protocol)
    assert type(build_method(two.method, two.shrink, 0)).__name__ == "Dense"
    assert twice.config["method"] == "dense_twice_steps"


def test_sizes_of_gpt2_are_shares_of_all_parameters() -> None:
    found = cells("gpt2_pretraining", "gpu", "ecospa")
    assert [cell.config["target"] for cell in found] == [0.625, 0.4545]
    assert {cell.config["method_config"]["target_scope"] for cell in found} == {"parameters"}


def test_tier_cpu_is_as_many_times_smaller_as_a_whole_by_its_shares_of_the_blocks() -> None:
    from benchmarks.models.language import build_model

    found = cells("gpt2_pretraining", "cpu", "small_dense")
    assert [cell.config["target"] for cell in found] == [0.5, 0.3]
    for cell, times in zip(found, gpt2_pretraining.TIMES_SMALLER, strict=True):
        model = build_model(cell.settings.model, 0)
        small = build_method(cell.settings.method, cell.settings.shrink, 0).prepare(model)
        assert small is not None
        assert parameters(model) / parameters(small) == pytest.approx(times, rel=0.05)


def test_from_scratch_experiments_of_tier_cpu_see_enough_text_and_share_their_cells() -> None:
    from benchmarks.models.language import build_model

    names = ("coupled_vs_uncoupled", "importance_metrics", "gpt2_pretraining", "llama_pretraining", "k_theta_sweep")
    found = [c for name in names for c in cells(name, "cpu", *registry.experiment(name).methods)]
    scratch = [c for c in found if not isinstance(c.settings.model, TrainedModel)]
    for model in {c.settings.model for c in scratch}:
        blocks = parameters(build_model(model, 0), "blocks")
        assert 0.15e6 <= blocks <= 0.45e6
        for training, length in {(c.settings.training, c.settings.protocol.sequence_length) for c in scratch
                                 if c.settings.model == model}:  # fmt: skip
            assert training.steps * training.batch_size * length >= 20 * blocks
    assert {c.settings.protocol.split for c in scratch} == {"test"}  # rates were chosen on the other one
    gpt2 = [c for c in scratch if c.settings.model.family == "gpt2"]
    assert len({(c.settings.model, c.settings.data, c.settings.protocol) for c in gpt2}) == 1
    ours = {c.config_hash for c in gpt2 if c.config["target"] == 0.3 and c.method == "ecospa"}
    assert len(ours) == 1 and sum(c.config_hash in ours for c in gpt2) == 3  # one run for three experiments
    assert len({c.config_hash for c in gpt2 if c.method == "dense"}) == 1


def test_tables_borrow_what_experiments_share() -> None:
    names = tuple(name for name in registry.experiments() if "cpu" in registry.experiment(name).tiers)
    borrowed = {
        (name, cell.experiment, cell.method)
        for name in names
        for cell in cells(name, "cpu", *registry.experiment(name).methods)
        if cell.experiment != name
    }
    assert {(name, owner) for name, owner, _ in borrowed} == set(shared_cells.LENDERS.items())
    assert all(method in shared_cells.METHODS[owner] for _, owner, method in borrowed)


def test_images_of_tier_cpu_see_enough_patches_and_have_every_control() -> None:
    from benchmarks.models.vision import build_classifier, positions

    vit = cells("vit_cifar10", "cpu", *registry.experiment("vit_cifar10").methods)
    spec, training = vit[0].settings.model, vit[0].settings.training
    blocks = parameters(build_classifier(spec, 0), "blocks")
    assert 0.15e6 <= blocks <= 0.45e6 and positions(spec) == 65
    assert training.steps * training.batch_size * positions(spec) >= 20 * blocks
    assert training.steps * training.batch_size >= 50_000  # every image is seen
    assert len({(c.settings.model, c.settings.data, c.settings.protocol) for c in vit}) == 1
    controls = {"dense", "small_dense", "uniform_pairs", "random_pairs", "ecospa_at_start", "ecospa_at_end", *CONTROLS}
    assert controls <= {c.method for c in vit if c.config["target"] in (None, 0.3)}
    deit = cells("deit_imagenet", "cpu", *registry.experiment("deit_imagenet").methods)
    assert {c.config_hash for c in deit if c.method != "svite"} <= {c.config_hash for c in vit}
    assert [c.experiment for c in deit if c.method == "svite"] == ["deit_imagenet"]
    assert [c.settings.model for c in deit if c.method == "svite"] == [spec]


@pytest.mark.parametrize("name", ["coupled_vs_uncoupled", "llama_pretraining"])
def test_claims_of_tier_cpu_have_eight_seeds_and_every_control(name: str) -> None:
    target = {"coupled_vs_uncoupled": 0.3, "llama_pretraining": 0.5}[name]
    found = {c.method: c for c in cells(name, "cpu", *registry.experiment(name).methods)
             if c.config["target"] in (None, target)}  # fmt: skip
    controls = {"dense", "small_dense", "uniform_pairs", "random_pairs", "ecospa_at_start", "ecospa_at_end", *CONTROLS}
    assert controls <= found.keys()
    for method in ("ecospa", "dense", "small_dense", "small_dense_equal_flops", "final_shape", "uniform_pairs"):
        assert found[method].seeds == tuple(range(8))


def test_the_published_recipe_is_that_of_the_paper_tier() -> None:
    small, medium = (scale.training for scale in gpt2_pretraining.SCALES["paper"])
    assert (small.learning_rate, medium.learning_rate) == (6e-4, 1.5e-4)
    for training in (small, medium):
        assert (training.batch_size, training.weight_decay, training.max_grad_norm) == (512, 0.1, 1.0)
        assert training.batch_size % training.micro_batch_size == 0
    names = {cell.config["model"]["name"] for cell in cells("gpt2_pretraining", "paper", "dense")}
    assert names == {"GPT-2-Small", "GPT-2-Medium"}


@pytest.mark.parametrize("tier", ["smoke"])
def test_the_small_models_can_get_as_small_as_they_have_to(tier: str, tmp_path: Path) -> None:
    from benchmarks.models.language import build_model

    for cell in cells("gpt2_pretraining", tier, "ecospa", "small_dense"):
        own: TrainingSettings = cell.settings
        model = build_model(own.model, 0)
        whole = parameters(model)
        method = build_method(own.method, own.shrink, 0)
        small = method.prepare(model)
        if small is not None:
            assert parameters(small) == pytest.approx(own.target * whole, rel=0.03)


def test_a_variant_is_called_by_its_name_and_a_custom_method_by_its_place() -> None:
    (cell,) = cells("coupled_vs_uncoupled", "smoke", "ecospa_at_end")
    assert "--methods ecospa_at_end" in recording.command(Run(cell, 0))
    custom = MethodRef.parse("package.module:Mine")
    made = coupled_vs_uncoupled.cells("smoke", (custom,))[0]
    assert "--methods package.module:Mine" in recording.command(Run(made, 0))
    (plain,) = cells("importance_metrics", "smoke", "importance_taylor")
    assert "--methods importance_taylor" in recording.command(Run(plain, 0))


def test_the_grid_has_every_k_and_theta_in_both_stages() -> None:
    experiment = registry.experiment("k_theta_sweep")
    found = cells("k_theta_sweep", "cpu", *experiment.methods)
    values = [
        (
            c.config["model"]["name"],
            c.config["method_config"]["top_k"],
            c.config["method_config"]["importance_threshold"],
        )
        for c in found
        if c.config["target"] is not None
    ]
    assert len(values) == len(set(values)) == 18
    assert {c.config["target"] for c in found} == {None, 0.3, k_theta_sweep.TARGET}
    for cell in found:
        assert isinstance(cell.settings.protocol, FineTuning) == isinstance(cell.settings.model, TrainedModel)
        assert cell.settings.training.learning_rate in (8e-3, 7.5e-4)
    method = build_method(found[0].settings.method, found[0].settings.shrink, 0)
    assert isinstance(method, EcoSpaSpaced)


@pytest.mark.parametrize(("top_k", "theta"), [(0.1, 0.95), (0.5, 0.7), (0.3, 0.9)])
def test_spaced_cuts_land_at_the_end_step_whatever_k_and_theta(top_k: float, theta: float) -> None:
    budget = replace(
        BUDGET, total_steps=24, end_step=20, interval=7, top_k=top_k, importance_threshold=theta, width_multiple=1
    )
    run = SmallRun.fresh(EcoSpaSpaced, budget).train(24)
    whole = parameters(tiny_gpt2(), "blocks")
    kept = parameters(run.model, "blocks")
    assert 0 <= kept - round(0.5 * whole) < largest_step(tiny_gpt2(), 1)
    steps = [entry["step"] for entry in run.method.history]
    assert steps[-1] <= 20
    if (top_k, theta) == (0.5, 0.7):  # a sixth of the size at once: few cuts, spread over the steps
        assert 3 <= len(steps) - 1 <= 7 and steps[-1] >= 16


@pytest.mark.parametrize("method", ["importance_entropy", "importance_taylor", "ecospa_spaced"])
def test_new_methods_run_and_resume_from_settings(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    outcome = train(Run(Cell("tiny", "smoke", method, settings(method, 0.5)), 0), run_context(tmp_path))
    sizes = [event.block_parameters for event in outcome.plan_history]
    assert sizes[-1] == pytest.approx(0.5 * sizes[0], rel=0.05)


@pytest.mark.slow
def test_fine_tuning_goes_on_with_the_trained_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    own = settings("dense")
    model = TrainedModel(**vars(own.model), name="trained", pretraining=replace(own.training, steps=40))
    protocol = FineTuning(**vars(own.protocol))
    tuned = replace(own, model=model, protocol=protocol, training=replace(own.training, learning_rate=1e-4))
    place = run_context(tmp_path)
    fresh = train(Run(Cell("tiny", "smoke", "dense", own), 0), place)
    after = train(Run(Cell("tiny", "smoke", "dense", tuned), 0), place)
    assert after.loss_curve[0][1] < 0.7 * fresh.loss_curve[0][1]  # it does not begin at the beginning
    assert after.metrics["eval_loss"].value < fresh.metrics["eval_loss"].value
    assert after.data_fingerprint == fresh.data_fingerprint
    kept = [path for path in (tmp_path / "trained").iterdir() if path.is_dir()]
    assert len(kept) == 1
    again = train(Run(Cell("tiny", "smoke", "dense", tuned), 0), place)
    assert again.metrics["eval_loss"] == after.metrics["eval_loss"]
    place_of_another_seed = trained_language_model.trained_place(tuned, "smoke", place, 1)
    assert place_of_another_seed not in kept and place_of_another_seed.is_dir()


def test_every_method_of_the_experiments_exists() -> None:
    for name in ("gpt2_pretraining", "importance_metrics", "k_theta_sweep", "coupled_vs_uncoupled"):
        for cell in cells(name, "smoke", *registry.experiment(name).methods):
            reference = cell.settings.method
            assert issubclass(baselines.load(reference.location or reference.name), baselines.TrainingMethod)
