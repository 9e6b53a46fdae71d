"""Trains tiny models under torch.compile and prints what was compiled when, as JSON.

Run as a process of its own: the tests' check of tensor shapes wraps the functions of `ecospa`, and torch would compile
the wrappers.
"""

import json
import sys

import torch

import ecospa

STEPS = 26


class Counting:
    """A backend that runs graphs as they are, or through another backend, and counts compilations and runs."""

    def __init__(self, through="eager"):
        self.compilations = self.runs = 0
        self.compile = torch._dynamo.lookup_backend(through)

    def __call__(self, graph, inputs):
        self.compilations += 1
        compiled = self.compile(graph, inputs)

        def run(*values):
            self.runs += 1
            return compiled(*values)

        return run


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            n_layer=1, n_embd=64, n_head=2, vocab_size=61, n_positions=16, bos_token_id=0, eos_token_id=0,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=1, hidden_size=64, intermediate_size=160, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=61, max_position_embeddings=16, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


MODELS = {"gpt2": gpt2, "llama": llama}


def train(kind, compiled=None, backend=None, sizes=(2,)):
    """Losses; per step (compilations, runs of compiled graphs, whether an event followed)."""
    torch.manual_seed(0)
    model = MODELS[kind]().double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    config = ecospa.EcoSpaConfig(target_size=0.15, target_scope="blocks", interval=2, width_multiple=1)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    backend = backend or Counting()
    forward = compiled_forward(model, compiled, backend)
    losses, steps = [], []
    for step in range(STEPS):
        tokens = torch.randint(0, 61, (sizes[step % len(sizes)], 12))
        before = (backend.compilations, backend.runs, len(sparsity.history))
        logits = forward(input_ids=tokens).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()
        losses.append(loss.item())
        after = (backend.compilations, backend.runs, len(sparsity.history))
        steps.append(tuple(b - a for a, b in zip(before, after, strict=True)))
    return losses, steps


def compiled_forward(model, compiled, backend):
    if compiled == "whole":
        return torch.compile(model, backend=backend)
    for block in model.model.layers if compiled else ():
        block.compile(backend=backend, dynamic=True if compiled == "dynamic blocks" else None)
    return model


CASES = {
    "gpt2": ("gpt2", "whole", "eager", (2,)),
    "llama": ("llama", "blocks", "aot_eager", (2,)),
    "batches of changing size": ("llama", "dynamic blocks", "eager", (2, 3, 4)),
    "no reset": ("llama", "blocks", "eager", (2,)),
}


def main(name):
    kind, compiled, through, sizes = CASES[name]
    expected, _ = train(kind, sizes=sizes)
    if name == "no reset":
        torch._dynamo.reset = lambda: None
    losses, steps = train(kind, compiled, Counting(through), sizes)
    print(json.dumps({"expected": expected, "losses": losses, "steps": steps}))


if __name__ == "__main__":
    main(*sys.argv[1:])
