# %% [markdown]
"""# Shrink a pre-trained language model: one cut, then a short recovery

`python examples/shrink_pretrained.py --model FOLDER_OR_HUB_ID`, or cell by cell in an editor that knows `# %%`.
The text to rank the pairs with and to recover on is sampled from the dense model itself, so neither a data set nor a
tokenizer is needed. With text of your own, put its tokens in place of `sampled`.
"""

# %% Settings
from __future__ import annotations

import argparse
import math

import torch
from transformers import AutoModelForCausalLM

import ecospa

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="gpt2", help="folder or Hugging Face id of a causal language model (gpt2)")
parser.add_argument("--target-size", type=float, default=0.8, help="share of the block parameters to keep (0.8)")
parser.add_argument("--steps", type=int, default=100, help="optimizer steps of the recovery (100)")
parser.add_argument("--sequences", type=int, default=64, help="sequences to sample (64)")
parser.add_argument("--length", type=int, default=128, help="tokens per sequence (128)")
parser.add_argument("--out", help="folder to save the smaller model to")
options = parser.parse_args()

# %% The dense model, and text of its own
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(options.model)
start = torch.full((options.sequences, 1), model.config.bos_token_id or 0)
with torch.no_grad():
    sampled = model.generate(
        start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0,
        min_new_tokens=options.length - 1, max_new_tokens=options.length - 1,
    )  # fmt: skip
held_out, training = sampled.split([options.sequences // 4, options.sequences - options.sequences // 4])


def perplexity() -> float:
    """Return the model's perplexity on the held-out text."""
    model.eval()
    with torch.no_grad():
        return math.exp(model(held_out, labels=held_out).loss.item())


dense_perplexity, dense_size = perplexity(), ecospa.accounting.parameters(model, "blocks")

# %% Importance of every pair: empirical Fisher information over the text
estimator = ecospa.CoupledEstimator(model, ecospa.coupled_pairs(model))
for rows in training.split(8):
    model.zero_grad()
    model(rows, labels=rows).loss.backward()
    estimator.update()
model.zero_grad()

# %% The plan: look at it before anything changes
plan = ecospa.plan_shrink(
    model, options.target_size, target_scope="blocks", top_k=0.5, importances=estimator.importances()
)
for name, width in plan.widths_after().items():
    print(f"{name:40} {width}")

# %% The cut
ecospa.apply_plan(model, plan)
cut_perplexity = perplexity()

# %% The recovery: the same optimizer as for any dense model
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
model.train()
for _ in range(options.steps):
    rows = training[torch.randperm(len(training))[:8]]
    model(rows, labels=rows).loss.backward()
    optimizer.step()
    optimizer.zero_grad()

# %% What is left
left = ecospa.accounting.parameters(model, "blocks") / dense_size
print(f"blocks kept {left:.1%}")
print(f"perplexity: dense {dense_perplexity:.2f}, cut {cut_perplexity:.2f}, recovered {perplexity():.2f}")
if options.out:
    ecospa.save_pretrained(model, options.out)
