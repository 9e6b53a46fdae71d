"""Widths that suit a device: what a rule allows, what is chosen from times, and that a run keeps its rule."""

import copy
import json
from dataclasses import asdict

import pytest
import torch

import ecospa
from ecospa import PairKind, WidthRule, width_timing
from ecospa.__main__ import main
from ecospa.trace import weightless
from ecospa.width_rule import DEVICE_WIDTHS, choose_multiple, fitting, odd_multiple
from ecospa.width_timing import device_rule
from tests.ecospa.test_forecast import saved_config
from tests.ecospa.test_sparsity import make, run
from tests.model_zoo import ZOO, build, inputs, logits

TIED = WidthRule(qk=2, vo=1, ffn=8, tied=True, reason="told by a test")
CURVE = {"pace": "curve", "start_step": 2, "end_step": 14, "interval": 2, "target_size": 0.55}


def line(multiple: int, whole: int = 64) -> dict[int, float]:
    return {width: 1.0 + width for width in range(multiple, whole + 1, multiple)}


def test_the_finest_multiple_that_costs_nothing_is_taken():
    assert choose_multiple({8: line(8), 16: line(16)})[0] == 8
    slow = {width: seconds * (1.0 if width % 16 == 0 else 1.1) for width, seconds in line(8).items()}
    multiple, told = choose_multiple({8: slow, 16: line(16)})
    assert multiple == 16 and "8 costs 1.05 of 16" in told and "16 costs 1.00 of 16" in told
    assert choose_multiple({64: line(32)})[0] == 64


def test_a_multiple_whose_narrower_widths_are_slower_is_not_taken():
    stairs = line(8) | {40: 1.05 * line(8)[48]}
    multiple, told = choose_multiple({8: stairs, 16: line(16)})
    assert multiple == 16
    assert "a narrower width 1.05 of a wider one" in told


@pytest.mark.parametrize(("width", "found"), [(64, (8, 16)), (16, (8,)), (15, (4,)), (8, (4,)), (2, (1,)), (1, (1,))])
def test_a_multiple_leaves_room_for_a_cut(width, found):
    assert fitting((8, 16), width) == found


@pytest.mark.parametrize(("width", "multiple"), [(56, 8), (40.0, 16), (3, 8), (1365, 64)])
def test_odd_multiples_belong_to_no_coarser_one(width, multiple):
    found = odd_multiple(width, multiple)
    assert found % multiple == 0 and found // multiple % 2 == 1
    assert abs(found - width) <= multiple or found == multiple


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "qwen3", "bert", "vit", "timm-deit-distilled"])
@pytest.mark.parametrize("granularity", ["layer", "head"])
def test_tied_heads_stay_equally_wide_and_the_target_is_met(kind, granularity):
    options = {**CURVE, "top_k": 1.0}
    model, optimizer, sparsity = make(kind, width_multiple=TIED, granularity=granularity, **options)
    full = ecospa.accounting.parameters(model, "blocks")
    run(model, optimizer, sparsity, kind, range(16))
    seen = set()
    for event in sparsity.history:
        for name, width in event.widths.items():
            if name.endswith(".qk"):
                assert width == event.widths[name.removesuffix("qk") + "vo"]
                assert width % 2 == 0
                seen.add(width)
            if name.endswith(".ffn") and event.step:
                assert width % 8 == 0
    assert len(seen) > 1 and sparsity.finished
    pairs = {(pair.module, pair.kind): pair for pair in ecospa.coupled_pairs(model)}
    steps = [8 * ecospa.plan.index_parameters(model, pair) for pair in pairs.values() if pair.kind is PairKind.FFN]
    steps += [
        2 * sum(ecospa.plan.index_parameters(model, pairs[module, both]) for both in (PairKind.QK, PairKind.VO))
        for module, which in pairs
        if which is PairKind.QK
    ]
    left, target = ecospa.accounting.parameters(model, "blocks"), sparsity.sparsifier.target_size
    assert target == round(0.55 * full) and target <= left < target + max(steps)


def test_tied_pairs_choose_their_own_indices():
    model = build("gpt2")
    plan = ecospa.plan_shrink(model, 0.5, target_scope="blocks", width_multiple=WidthRule(2, 2, 2, tied=True))
    scores = ecospa.CoupledSparsifier(model, ecospa.EcoSpaConfig(width_multiple=2)).scores(model)
    both = [name for name in plan.kept if name.endswith((".qk", ".vo"))]
    assert both
    for name in both:
        kept = plan.kept[name]
        best = scores[name].topk(kept.shape[1], dim=1).indices.sort(dim=1).values
        assert torch.equal(kept, best)
    query, value = (plan.kept[f"transformer.h.0.attn.{kind}"] for kind in ("qk", "vo"))
    assert query.shape == value.shape and not torch.equal(query, value)


def test_heads_that_are_unequal_already_are_not_tied():
    model = build("gpt2")
    name = "transformer.h.0.attn.qk"
    pair = next(pair for pair in ecospa.coupled_pairs(model) if pair.name == name)
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, {name: torch.arange(4).expand(pair.groups, -1)}))
    plan = ecospa.plan_shrink(model, 0.7, target_scope="blocks", width_multiple=WidthRule(2, 2, 2, tied=True))
    widths = plan.widths_after()
    assert widths["transformer.h.1.attn.qk"] == widths["transformer.h.1.attn.vo"] < 8
    assert widths[name] == 4  # flat importances take the first pairs of all first, and this one is at its turn alone


def test_auto_measures_the_models_own_shape_and_tells_the_plan(monkeypatch):
    timed = []

    def told(works, device):
        timed.append((len(works), device))
        for work in works:
            work()  # what would be timed runs
        return [1.0] * len(works)

    monkeypatch.setattr(width_timing, "_fastest", told)
    model = build("llama-gqa").float()
    plan = ecospa.plan_shrink(model, 0.6, target_scope="blocks", width_multiple="auto")
    assert len(timed) == 3 and {device for _, device in timed} == {"cpu"}
    rule = device_rule(model)
    assert plan.reason == rule.reason
    assert "measured: heads" in rule.reason and DEVICE_WIDTHS["cpu"].why in rule.reason
    again = ecospa.SparsityPlan.from_json(plan.to_json())
    assert again.reason == plan.reason and again.widths_after() == plan.widths_after()
    older = json.loads(plan.to_json())
    older.pop("reason")
    assert ecospa.SparsityPlan.from_json(json.dumps(older)).reason == ""


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert", "vit", "timm-vit"])
def test_auto_shrinks_every_family_and_never_measures_twice(kind, monkeypatch):
    """With real times; a resumed run keeps the rule of the first, whatever a second measurement would say."""
    options = {**CURVE, "width_multiple": "auto", "target_size": 0.7}
    torch.manual_seed(0)
    model = ZOO[kind].build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    config = ecospa.EcoSpaConfig(target_scope="blocks", **options)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    run(model, optimizer, sparsity, kind, range(16))
    rule = sparsity.sparsifier.rule
    assert sparsity.finished and "measured" in rule.reason
    saved = json.loads(json.dumps(sparsity.state_dict()))

    def refuse(model):
        raise AssertionError("measured again")

    monkeypatch.setattr("ecospa.sparsifier.device_rule", refuse)
    resumed = ecospa.CoupledSparsity(model, optimizer, config, resume=saved)
    assert resumed.sparsifier.rule == rule and resumed.history == sparsity.history


def test_what_is_timed_is_attention_with_unequal_widths_too():
    model = build("llama-gqa").float()
    layer = width_timing._layer(model, ecospa.coupled_pairs(model), None)
    for qk, vo in ((8, 8), (8, 16), (16, 8)):
        width_timing._attention(layer, qk, vo)()
    width_timing._feed_forward(layer, 24)()
    assert layer.matrices == 2 and layer.repeats == 2 and layer.device == "cpu"


def test_a_model_without_weights_gets_the_coarsest_multiples_of_the_table():
    rule = device_rule(weightless(build("llama-gqa").float()), measure=False)
    assert (rule.qk, rule.vo, rule.tied) == (8, 8, True)  # heads of 16: 16 leaves no cut
    assert "not measured" in rule.reason
    model = build("llama-gqa").float()
    model.config._attn_implementation = "eager"
    assert not device_rule(weightless(model), measure=False).tied
    with pytest.raises(ecospa.ConfigError, match=r"nothing is known of device 'abacus'.*give a number"):
        device_rule(model, "abacus")


def test_the_plan_on_the_command_line_tells_the_rule(tmp_path, capsys):
    words = ["plan", saved_config(tmp_path, num_hidden_layers=2), "--width-multiple", "auto", "--device", "h100"]
    assert main(words) == 0
    page = capsys.readouterr().out
    assert "widths: heads multiples of 16 and 16, which stay equal, feed-forward of 128 (cuda: matrix units" in page
    assert main([*words[:2], "--width-multiple", "wide"]) == 2
    assert "width_multiple is 'wide'; it must be a whole number, or auto" in capsys.readouterr().err


def test_a_rule_survives_as_json():
    config = ecospa.EcoSpaConfig(width_multiple=TIED)
    assert ecospa.EcoSpaConfig(**json.loads(json.dumps(asdict(config)))) == config
    assert [config.floor_width(TIED, kind) for kind in (PairKind.QK, PairKind.VO, PairKind.FFN)] == [2, 1, 8]
    for wrong in (0, 1.5, True, "wide"):
        with pytest.raises(ecospa.ConfigError, match=f"width_multiple is {wrong!r}"):
            ecospa.EcoSpaConfig(width_multiple=wrong)
    for fields in ({"qk": 8, "vo": 8}, {"qk": 8, "vo": 8, "ffn": 8, "heads": 8}):
        with pytest.raises(ecospa.ConfigError, match=r"(ffn|heads) is missing or unknown; give the fields"):
            ecospa.EcoSpaConfig(width_multiple=fields)
    with pytest.raises(ecospa.ConfigError, match=r"width_multiple\.ffn is 0"):
        ecospa.EcoSpaConfig(width_multiple=WidthRule(8, 8, 0))


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_a_tied_cut_equals_the_zeroed_model(kind):
    model = build(kind)
    plan = ecospa.plan_shrink(model, 0.5, target_scope="blocks", width_multiple=WidthRule(2, 2, 2, tied=True))
    zeroed, cut = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        for pair in ecospa.coupled_pairs(zeroed):
            gone = torch.ones(pair.groups, pair.width, dtype=torch.bool)
            if pair.name in plan.kept:
                gone.scatter_(1, plan.kept[pair.name], False)
                for axis in pair.axes:
                    zeroed.get_parameter(axis.parameter).index_fill_(axis.axis, axis.index[gone].flatten(), 0.0)
    ecospa.apply_plan(cut, plan)
    batch = inputs(kind)
    torch.testing.assert_close(logits(cut.eval(), batch), logits(zeroed.eval(), batch), rtol=1e-12, atol=1e-12)
