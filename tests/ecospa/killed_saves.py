"""Saves over a good folder that are killed at random moments: a process that forks one child per save.

It is started by the test, imports everything once, and prints what it found after every kill as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ecospa
from ecospa import folders
from tests.model_zoo import random_plan

SIZES = {"small": (32, 2), "large": (256, 4)}
KINDS = ("gpt2", "llama", "timm")


def build(kind: str, size: str) -> nn.Module:
    """A cut model of a kind: width and layers by its size."""
    width, layers = SIZES[size]
    torch.manual_seed(0)
    if kind == "timm":
        import timm

        shape = {"embed_dim": width, "depth": layers, "num_heads": 4, "img_size": 8, "patch_size": 4, "num_classes": 5}
        model: Any = timm.create_model("vit_tiny_patch16_224", **shape)
    elif kind == "gpt2":
        from transformers import GPT2Config, GPT2LMHeadModel

        model = GPT2LMHeadModel(
            GPT2Config(n_layer=layers, n_embd=width, n_head=4, vocab_size=61, n_positions=32, bos_token_id=0,
                       eos_token_id=0)
        )  # fmt: skip
    else:
        from transformers import LlamaConfig, LlamaForCausalLM

        model = LlamaForCausalLM(
            LlamaConfig(num_hidden_layers=layers, hidden_size=width, intermediate_size=2 * width, vocab_size=61,
                        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32, pad_token_id=0)
        )  # fmt: skip
    ecospa.apply_plan(model, random_plan(model, 1))
    return model.eval()


def digest(model: nn.Module) -> str:
    """SHA-256 of every name and tensor of a model."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def changed(model: nn.Module, number: int) -> nn.Module:
    """The same model with other weights."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * (number + 1))
    return model


def kill_saves(kind: str, size: str, options: dict[str, Any], count: int, folder: Path, seed: int) -> dict[str, int]:
    """Kill `count` saves; how often the old model and the new one were there afterwards."""
    chance, model = random.Random(seed), build(kind, size)
    ecospa.save_pretrained(model, folder, **options)
    (folder / "README.md").write_text("mine")
    found = {"old": 0, "new": 0}
    for number in range(count):
        # the check by loading takes most of the time; without it more kills strike the writing and the swap
        options = {**options, "verify": number % 3 == 0}
        started = time.monotonic()
        ecospa.save_pretrained(model, folder, **options)
        whole = time.monotonic() - started
        there = digest(model)
        new = digest(changed(model, number))
        child = os.fork()
        if child == 0:
            ecospa.save_pretrained(model, folder, **options)
            os._exit(0)
        time.sleep(chance.uniform(0, 2 * whole))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        loaded = digest(ecospa.from_pretrained(folder))
        assert loaded in (there, new), f"kill {number} of {kind} {size} {options} left another model"
        assert (folder / "README.md").read_text() == "mine"
        found["new" if loaded == new else "old"] += 1
    ecospa.save_pretrained(model, folder, **options)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "leftovers of dead saves stay"
    return found


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    if asked.pop("two_renames"):
        folders._exchange = lambda first, second: False
    print(json.dumps(kill_saves(**{**asked, "folder": Path(asked["folder"])})), flush=True)
