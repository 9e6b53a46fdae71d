"""Batches of every make in parts: what has one row per example is taken apart, what is for all goes with every part."""

from __future__ import annotations

import copy
from collections import UserDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BatchFeature, DynamicCache

from ecospa import ConfigError, MemoryBudget
from ecospa.batch_parts import Batch
from tests.ecospa.loss_heads import EXAMPLES, IDS, LENGTH, PADDED, check, of, text, whole_and_parts

ROWS = torch.arange(5)[:, None].expand(5, 4)


def test_entries_of_every_kind() -> None:
    entries = {
        "input_ids": ROWS,
        "attention_mask": torch.ones(5, 1, 4, 4),
        "causal": torch.ones(1, 1, 4, 4),
        "position_ids": torch.arange(4)[None],
        "cache_position": torch.arange(5),
        "flag": True,
        "nothing": None,
        "scale": torch.tensor(2.0),
        "name": "five",
        "ratio": 0.5,
        "texts": ["a", "b", "c", "d", "e"],
        "sizes": (3, 4),
        "images": [torch.full((2,), number) for number in range(5)],
        "vision": {"pixel_values": ROWS + 10.0, "grid": {"rows": ROWS}},
    }
    batch = Batch(entries)
    assert batch.examples == 5
    for index in (slice(1, 3), [1, 2]):
        part = batch.rows(index)
        assert list(part) == list(entries)
        assert part["input_ids"][:, 0].tolist() == [1, 2]
        assert part["attention_mask"].shape == (2, 1, 4, 4) and part["causal"].shape == (1, 1, 4, 4)
        assert part["position_ids"] is entries["position_ids"] and part["cache_position"] is entries["cache_position"]
        assert (part["flag"], part["nothing"], part["name"], part["ratio"]) == (True, None, "five", 0.5)
        assert part["texts"] == ["b", "c"] and part["sizes"] == (3, 4) and float(part["scale"]) == 2
        assert [int(image[0]) for image in part["images"]] == [1, 2]
        assert part["vision"]["pixel_values"][:, 0].tolist() == [11, 12]
        assert part["vision"]["grid"]["rows"][:, 0].tolist() == [1, 2]
    empty = batch.stand_in(3, torch.bfloat16)
    assert empty["input_ids"].shape == (3, 4) and empty["input_ids"].dtype == torch.int64 and empty["causal"].is_meta
    assert empty["vision"]["pixel_values"].dtype == torch.bfloat16 and len(empty["images"]) == 3
    assert empty["flag"] is True and empty["texts"] == ["a", "b", "c"]


def test_axes_that_are_as_long_as_the_batch_by_chance() -> None:
    four = torch.zeros(4, 4, dtype=torch.long)
    entries = {"position_ids": torch.arange(4), "input_ids": four, "head_mask": torch.ones(4), "weights": torch.ones(4)}
    part = Batch(entries, shared=("weights",)).rows(slice(0, 2))
    assert [len(part[name]) for name in entries] == [4, 2, 4, 4]
    axes = Batch({"input_ids": torch.zeros(3, 4), "position_ids": torch.arange(36).view(3, 3, 4)}).rows([1])
    assert axes["position_ids"][:, 0, 0].tolist() == [4, 16, 28]
    named = Batch({"other": torch.zeros(2, 3), "x": torch.zeros(6, 3), "y": torch.zeros(6)}, shared=("other",))
    assert named.examples == 6
    assert Batch({"a": torch.zeros(1, 3), "x": torch.zeros(6, 3)}).examples == 6
    assert Batch({"a": torch.zeros(1, 3), "x": torch.zeros(6, 3)}, main_input="a").examples == 1


@pytest.mark.parametrize("kind", [dict, UserDict, BatchFeature])
def test_mappings_of_other_classes(kind: Any) -> None:
    part = Batch(kind({"input_ids": ROWS})).rows([0, 4])
    assert type(part) is dict and part["input_ids"][:, 0].tolist() == [0, 4]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([ROWS, ROWS], "the batch is a list; give a mapping"),
        ((ROWS,), "the batch is a tuple"),
        ({}, "holds no tensor with examples, only nothing"),
        ({"flag": True}, "holds no tensor with examples, only flag"),
        ({"input_ids": ROWS[:0]}, "holds no example: input_ids has no rows"),
        ({"input_ids": ROWS, "labels": ROWS[:3]}, r"labels has 3 rows where the batch has 5.*shared=\('labels',\)"),
        ({"input_ids": ROWS, "inner": {"weights": torch.ones(7)}}, "entry inner.weights has 7 rows"),
        ({"input_ids": ROWS, "past_key_values": DynamicCache()}, "past_key_values is a DynamicCache, which cannot be"),
        ({"input_ids": ROWS, "labels": np.zeros(5)}, "labels is a ndarray, which cannot be.*give tensors"),
        ({"input_ids": ROWS, "mask": SimpleNamespace()}, "mask is a SimpleNamespace"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_taken_apart_is_refused_by_name(batch: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Batch(batch)


class Wrapped(nn.Module):
    """A language model that takes its inputs as one mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.model = of("LlamaForCausalLM")

    def forward(self, inputs: dict[str, Tensor], labels: Tensor, scale: float = 1.0) -> Any:
        return SimpleNamespace(loss=scale * self.model(**inputs, labels=labels).loss)


def mask4() -> Tensor:
    return torch.zeros(1, 1, LENGTH, LENGTH).masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -1e9)


BATCHES: dict[str, tuple[Any, dict[str, Any]]] = {
    "positions": (lambda: of("LlamaForCausalLM"), text(labels=PADDED, position_ids=torch.arange(LENGTH)[None])),
    "shared-mask": (lambda: of("LlamaForCausalLM"), text(labels=PADDED, attention_mask=mask4())),
    "own-masks": (
        lambda: of("LlamaForCausalLM"), text(labels=PADDED, attention_mask=mask4().expand(EXAMPLES, -1, -1, -1))
    ),
    "embeddings": (
        lambda: of("LlamaForCausalLM"), {"inputs_embeds": torch.randn(EXAMPLES, LENGTH, 16), "labels": PADDED}
    ),
    "segments": (lambda: of("BertForMaskedLM"), text(labels=PADDED, token_type_ids=IDS % 2)),
    "flags": (lambda: of("GPT2LMHeadModel"), text(labels=PADDED, use_cache=False, attention_mask=None)),
    "nested": (Wrapped, {"inputs": {"input_ids": IDS}, "labels": PADDED, "scale": 2.0}),
    "classifier": (lambda: of("GPT2ForSequenceClassification"), text(labels=torch.arange(EXAMPLES) % 3)),
    "classifier-llama": (lambda: of("LlamaForSequenceClassification"), text(labels=torch.arange(EXAMPLES) % 3)),
}  # fmt: skip


@pytest.mark.parametrize("what", BATCHES)
def test_budgets_take_them(what: str) -> None:
    """With a limit in bytes, for which the model is traced without its weights."""
    build, batch = BATCHES[what]
    model = build().train()
    generous = MemoryBudget(10**12, model, torch.optim.SGD(model.parameters()))
    limit = generous.peak(batch, 3)
    tight = MemoryBudget(limit, model, torch.optim.SGD(model.parameters()))
    assert len(list(tight.split(batch))) == 3 and tight.micro_batch == 3
    check(*whole_and_parts(model, batch, 3))
    assert len(list(generous.split(batch))) == 1
    single = Batch(batch).rows(slice(0, 1))
    assert [share for _, share in tight.split(single)] == [1.0]


class Looking(nn.Module):
    """A model that does what only values allow."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Any:
        order = x[:, 0].tolist()
        return SimpleNamespace(loss=self.head(x[: len(order)]).square().mean() + 0 * np.asarray(x).sum())


def test_a_model_that_cannot_be_traced_is_named_and_a_way_out_works() -> None:
    model, batch = Looking(), {"x": torch.randn(6, 3)}
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(ConfigError, match=r"Looking cannot be traced without its weights \(.*micro_batch=4"):
        next(MemoryBudget(10**9, model, optimizer).split(batch))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    check(*whole_and_parts(model, batch, 4))
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(ConfigError, match=r"micro_batch is .*; it must be a whole number of examples"):
            MemoryBudget(1, model, optimizer, micro_batch=wrong)  # type: ignore[arg-type]
