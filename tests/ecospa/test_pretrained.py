"""A really trained model, stories260K: exact cuts, bitwise checkpoints, and a score that knows what it removes."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import ecospa
from tests.model_zoo import random_plan, zeroed

pytestmark = pytest.mark.data
PROMPT = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."


@pytest.fixture
def stories(ecospa_data):
    folder = ecospa_data / "models" / "stories260K"
    tokens = AutoTokenizer.from_pretrained(folder)(PROMPT, return_tensors="pt").input_ids
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokens


def loss(model, tokens):
    with torch.no_grad():
        return float(model(tokens, labels=tokens).loss)


def test_cut_equals_zeroed_and_comes_back_bitwise(stories, tmp_path):
    model, tokens = stories
    plan = random_plan(model, 1)
    reference = zeroed(copy.deepcopy(model).double(), plan)
    ecospa.apply_plan(model, plan)
    with torch.no_grad():
        logits = model(tokens).logits
        # the rotary model runs its norms in float32 here, the reference in float64
        assert (logits.double() - reference(tokens).logits).abs().max() < 1e-3
        ecospa.save_pretrained(model, tmp_path)
        assert torch.equal(ecospa.from_pretrained(tmp_path)(tokens).logits, logits)


def test_removing_the_lowest_scores_costs_less_than_the_highest(stories):
    model, tokens = stories
    whole = loss(model, tokens)
    best, worst = copy.deepcopy(model), copy.deepcopy(model)
    ecospa.apply_plan(best, ecospa.plan_shrink(best, 0.9, target_scope="blocks", width_multiple=2))
    scores = ecospa.CoupledSparsifier(worst, ecospa.EcoSpaConfig(width_multiple=2)).scores(worst)
    upside_down = {name: 1 / value for name, value in scores.items()}
    ecospa.apply_plan(
        worst, ecospa.plan_shrink(worst, 0.9, target_scope="blocks", width_multiple=2, scores=upside_down)
    )
    assert whole < loss(best, tokens) < loss(worst, tokens)
