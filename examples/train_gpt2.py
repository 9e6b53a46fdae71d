"""GPT-2 from scratch in a plain PyTorch loop, half of its blocks gone by the end: `python examples/train_gpt2.py`.

Reads the source text of Python's standard library, byte by byte, so it needs no data set, no tokenizer and no network.
"""

from __future__ import annotations

import argparse
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

import ecospa


def standard_library(length: int) -> Tensor:
    """Return the first `length` bytes of the standard library's modules, as tokens of a vocabulary of 256."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = b""
    for file in files:
        text += file.read_bytes()
        if len(text) >= length:
            break
    return torch.tensor(list(text[:length]))


def batch_of(tokens: Tensor, batch: int, sequence: int, generator: torch.Generator) -> Tensor:
    """Return random windows of the text, (batch, sequence)."""
    starts = torch.randint(len(tokens) - sequence, (batch,), generator=generator)
    return torch.stack([tokens[start : start + sequence] for start in starts])


def main(arguments: Sequence[str] | None = None) -> float:
    """Train, shrink, save, load; returns the share of the block parameters that is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--target-size", type=float, default=0.5, help="share of the block parameters to keep")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--out", type=Path, help="folder of the shrunk model; by default it is not kept")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    tokens = standard_library(1_000_000)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=256, n_positions=128, n_embd=options.width, n_layer=options.layers, n_head=4,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    dense = ecospa.accounting.parameters(model, "blocks")

    config = ecospa.EcoSpaConfig(
        target_size=options.target_size, target_scope="blocks", pace="curve",
        start_step=options.steps // 10, end_step=options.steps * 3 // 4,
    )  # fmt: skip
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    for step in range(1, options.steps + 1):
        rows = batch_of(tokens, batch=16, sequence=128, generator=generator)
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()
        if step % max(1, options.steps // 10) == 0:
            left = ecospa.accounting.parameters(model, "blocks") / dense
            print(f"step {step:5}  loss {loss.item():.3f}  blocks kept {left:.0%}")
    sparsity.close()

    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        ecospa.save_pretrained(model, folder)
        loaded = ecospa.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(loaded(rows).logits, model.eval()(rows).logits)
    return ecospa.accounting.parameters(loaded, "blocks") / dense


if __name__ == "__main__":
    main()
