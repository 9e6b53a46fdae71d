"""The dense size travels with the model: cut twice, copied, wrapped, pickled, saved, given another head."""

import copy
import pickle

import pytest
import torch
from torch import nn

import ecospa
from ecospa.dense import dense_parameters, dense_shape
from tests.model_zoo import ZOO, build, random_plan


class Wrapped(nn.Module):
    """A user's module around a model."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.head = inner, nn.Linear(3, 3)


@pytest.mark.parametrize("kind", ZOO)
def test_the_dense_size_survives_cuts_of_every_family(kind):
    model = build(kind)
    sizes = {scope: ecospa.accounting.parameters(model, scope) for scope in ("parameters", "blocks")}
    shape = dense_shape(model)
    assert all(dense_parameters(model, scope) == size for scope, size in sizes.items())
    for seed in (3, 4):
        ecospa.apply_plan(model, random_plan(model, seed))
        assert ecospa.accounting.parameters(model) < sizes["parameters"]
        assert all(dense_parameters(model, scope) == size for scope, size in sizes.items())
    assert dense_shape(model) == shape


@pytest.mark.parametrize("kind", ["llama-gqa", "bert", "timm-vit"])
def test_heads_that_left_are_counted(kind):
    model = build(kind)
    before = dense_parameters(model)
    attention = next(pair for pair in ecospa.coupled_pairs(model) if pair.kind is ecospa.PairKind.QK).module
    ecospa.surgery.keep_heads(model, {attention: torch.tensor([1])})
    ecospa.apply_plan(model, random_plan(model, 3))
    assert ecospa.accounting.parameters(model) < dense_parameters(model) == before


def test_copies_pickles_wrappers_and_other_heads_know_it(tmp_path):
    model = ZOO["bert"].build()
    dense = dense_parameters(model, "blocks")
    ecospa.apply_plan(model, random_plan(model, 3))
    assert ecospa.accounting.parameters(model, "blocks") < dense
    from transformers import BertConfig, BertForTokenClassification

    ecospa.save_pretrained(model, tmp_path / "saved")
    other = BertForTokenClassification(BertConfig(**{**model.config.to_dict(), "ecospa": None}))
    other.bert = model.bert
    for one in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        Wrapped(model),
        torch.compile(model, backend="eager"),
        ecospa.from_pretrained(tmp_path / "saved"),
    ):
        assert dense_parameters(one, "blocks") == dense
    assert dense_parameters(other, "blocks") == dense


@pytest.mark.parametrize("kind", ["gpt2", "timm-vit"])
def test_plans_in_a_row_end_at_a_share_of_the_dense_model(kind, tmp_path):
    model = ZOO[kind].build()
    dense = dense_parameters(model, "blocks")
    for target in (0.8, 0.6, 0.6):
        ecospa.apply_plan(model, ecospa.plan_shrink(model, target, target_scope="blocks", width_multiple=2))
        assert target <= ecospa.accounting.parameters(model, "blocks") / dense < target + 0.03
    ecospa.save_pretrained(model, tmp_path / "saved")
    again = ecospa.from_pretrained(tmp_path / "saved")
    assert not ecospa.plan_shrink(again, 0.6, target_scope="blocks", width_multiple=2).kept
    plan = ecospa.plan_shrink(again, 0.5, target_scope="blocks", width_multiple=2)
    assert 0.5 <= ecospa.accounting.parameters(again, "blocks", plan) / dense < 0.53


def test_the_smallest_reachable_value_has_the_same_denominator():
    model = ZOO["gpt2"].build()
    ecospa.apply_plan(model, ecospa.plan_shrink(model, 0.6, target_scope="blocks", width_multiple=2))
    with pytest.raises(ecospa.ConfigError, match="of the block parameters of the dense model") as caught:
        ecospa.plan_shrink(model, 0.01, target_scope="blocks", width_multiple=2)
    smallest = float(str(caught.value).split("reachable value is ")[1].split()[0])
    plan = ecospa.plan_shrink(model, smallest, target_scope="blocks", width_multiple=2)
    after = ecospa.accounting.parameters(model, "blocks", plan)
    assert after / dense_parameters(model, "blocks") == pytest.approx(smallest, abs=1e-2)  # one width step


def test_a_pair_that_is_narrower_than_the_multiple_by_now_is_left_alone():
    model = ZOO["gpt2"].build()
    kept = {"transformer.h.0.attn.qk": torch.arange(3).repeat(4, 1)}
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, kept))
    plan = ecospa.plan_shrink(model, 0.8, target_scope="blocks", width_multiple=4)
    assert plan.kept and "transformer.h.0.attn.qk" not in plan.kept
