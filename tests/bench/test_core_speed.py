"""How long the hot paths take, as ratios measured in one interleaved run: estimator, event, smaller training step.

Run by `tox run -e bench`. Nothing absolute is asserted: every limit is a ratio to the dense training step or forward
pass of the same model, timed alternately with it in the same process.
"""

from __future__ import annotations

import copy
import statistics
import time

import pytest
import torch

import ecospa

pytestmark = pytest.mark.bench
ROUNDS = 9


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=6, n_embd=384, n_head=6, vocab_size=4096, n_positions=128))


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=6, hidden_size=384, intermediate_size=1024, num_attention_heads=6, num_key_value_heads=3,
            vocab_size=4096, max_position_embeddings=128,
        )
    )  # fmt: skip


MODELS = {"gpt2": gpt2, "llama": llama}


def interleaved(benchmark, actions):
    """Median seconds of every action; the actions take turns, so that a slow moment of the machine hits all of them."""
    seconds = {name: [] for name in actions}

    def one_round():
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - start)

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=2, iterations=1)
    medians = {name: statistics.median(values[2:]) for name, values in seconds.items()}
    benchmark.extra_info.update({f"{name}_seconds": value for name, value in medians.items()})
    return medians


def told(benchmark, name, value, limit):
    """Keep a ratio with its limit in the benchmark's report, and print it."""
    benchmark.extra_info[name] = round(value, 4)
    print(f"\n{name}: {value:.4f} (limit {limit})")
    assert value <= limit, f"{name} is {value:.4f}, the limit is {limit}"


def training(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(0, 4096, (4, 128), generator=torch.Generator().manual_seed(0))

    def step():
        model.train()
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return optimizer, step, tokens


@pytest.mark.parametrize("kind", MODELS)
def test_estimator_costs_at_most_two_percent_of_a_step(benchmark, kind):
    torch.manual_seed(0)
    model = MODELS[kind]()
    assert sum(p.numel() for p in model.parameters()) >= 10_000_000
    _, step, tokens = training(model)
    twin = copy.deepcopy(model)
    twin(tokens, labels=tokens).loss.backward()
    estimator = ecospa.CoupledEstimator(twin, ecospa.coupled_pairs(twin))
    medians = interleaved(benchmark, {"step": step, "estimator": estimator.update})
    told(benchmark, f"{kind}_estimator_share_of_step", medians["estimator"] / medians["step"], 0.02)


@pytest.mark.parametrize("kind", MODELS)
def test_an_event_costs_at_most_two_steps(benchmark, kind):
    torch.manual_seed(0)
    model = MODELS[kind]()
    _, step, tokens = training(copy.deepcopy(model))
    optimizer, own_step, _ = training(model)
    own_step()
    # a target out of reach of these rounds: every event cuts, none is the last
    config = ecospa.EcoSpaConfig(
        interval=1, target_size=0.2, target_scope="blocks", width_multiple=1, importance_threshold=0.9
    )
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)

    def gradients():
        model(tokens, labels=tokens).loss.backward()
        sparsity.after_backward()

    medians = interleaved(benchmark, {"step": step, "gradients": gradients, "event": sparsity.after_step})
    assert len(sparsity.history) == ROUNDS + 3
    told(benchmark, f"{kind}_event_in_steps", medians["event"] / medians["step"], 2.0)


@pytest.mark.parametrize("kind", MODELS)
def test_half_of_the_blocks_trains_and_infers_faster(benchmark, kind):
    torch.manual_seed(0)
    dense = MODELS[kind]()
    half = copy.deepcopy(dense)
    ecospa.apply_plan(half, ecospa.plan_shrink(half, 0.5, target_scope="blocks"))
    _, dense_step, tokens = training(dense)
    _, half_step, _ = training(half)

    def forward(model):
        def run():
            model.eval()
            with torch.no_grad():
                model(tokens)

        return run

    medians = interleaved(
        benchmark,
        {
            "dense_step": dense_step,
            "half_step": half_step,
            "dense_forward": forward(dense),
            "half_forward": forward(half),
        },
    )
    flops = ecospa.accounting.forward_flops(half, 4, 128) / ecospa.accounting.forward_flops(dense, 4, 128)
    benchmark.extra_info["flop_ratio"] = round(flops, 4)
    assert 0.5 < flops < 0.6, "half of the blocks, and embeddings and head whole"
    print(f"\n{kind} flop ratio with embeddings and head: {flops:.4f}")
    told(benchmark, f"{kind}_training_step_ratio", medians["half_step"] / medians["dense_step"], 0.65)
    told(benchmark, f"{kind}_inference_ratio", medians["half_forward"] / medians["dense_forward"], 0.75)
