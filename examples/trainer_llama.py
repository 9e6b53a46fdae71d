"""LLaMA from scratch with the Hugging Face Trainer: `python examples/trainer_llama.py --out FOLDER`.

The data is made here: sums of two numbers, written out in characters, so the model has something to learn. The same
command again resumes from the last checkpoint, whose shapes may already be smaller than the dense model's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import ecospa

ALPHABET = "0123456789+=."


class Sums(Dataset[dict[str, torch.Tensor]]):
    """Sums such as "12+34=46.", padded with full stops; the loss ignores the padding."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < self.rows:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(index)
        first, second = torch.randint(100, (2,), generator=generator).tolist()
        text = f"{first}+{second}={first + second}."
        tokens = torch.tensor([ALPHABET.index(letter) for letter in text.ljust(10, ".")])
        labels = tokens.clone()
        labels[len(text) :] = -100
        return {"input_ids": tokens, "labels": labels}


def main(arguments: Sequence[str] | None = None) -> float:
    """Train and shrink; returns the share of the block parameters that is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--save-steps", type=int, default=100, help="optimizer steps between two checkpoints")
    parser.add_argument("--target-size", type=float, default=0.5, help="share of the block parameters to keep")
    parser.add_argument("--out", help="folder of the checkpoints; by default they are not kept")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(ALPHABET), hidden_size=128, intermediate_size=256, num_hidden_layers=4,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
            bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    dense = ecospa.accounting.parameters(model, "blocks")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or scratch
        trainer = ecospa.EcoSpaTrainer(
            model=model,
            args=TrainingArguments(
                folder, max_steps=options.steps, per_device_train_batch_size=32, learning_rate=1e-3,
                save_steps=options.save_steps, save_total_limit=2, logging_steps=50, report_to="none",
            ),
            train_dataset=Sums(10_000),
            ecospa_config=ecospa.EcoSpaConfig(
                target_size=options.target_size, target_scope="blocks", pace="curve",
                start_step=options.steps // 10, end_step=options.steps * 3 // 4,
            ),
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=get_last_checkpoint(folder))
    left = ecospa.accounting.parameters(trainer.model, "blocks") / dense
    print(f"blocks kept {left:.0%}")
    return left


if __name__ == "__main__":
    main()
