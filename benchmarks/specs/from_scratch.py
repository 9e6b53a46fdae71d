"""The scales at which tier cpu trains models from scratch: at least 20 tokens per block parameter.

A dense model is ahead of one of 30 % its size only when it has seen enough text; on 0.2 to 5 tokens per parameter both
are equally good, and nothing about shrinking can be decided. 20 is the ratio that compute-optimal training asks for
(arXiv 2203.15556). All experiments of tier cpu about a GPT-2 from scratch have this model, text and schedule, so that a
cell that two of them share is run once; so do those about an image classifier.
"""

from __future__ import annotations

from types import MappingProxyType

from benchmarks.specs.language import DataSpec, ProtocolSpec, ScaledModel
from benchmarks.specs.pretrained import NamedModel
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSpec
from benchmarks.specs.vision import AugmentationSpec, ImageDataSpec, ImageProtocolSpec, VisionModelSpec

TARGETS = (0.5, 0.3)
"""Shares of the block parameters: this model is then 1.6 and 2.2 times smaller as a whole, as in the paper's table."""
CLAIM_SEEDS = tuple(range(8))
"""Seeds of the comparisons at the smaller target, that carry a claim."""

TOKENS_PER_PARAMETER = 20
STEPS = 3_906
"""20 tokens for each of 199,936 block parameters, 1,024 tokens per step."""

RATE = 8e-3
"""Peak learning rate: of 4e-3, 8e-3 and 1.6e-2 the best of nearly every arm (experiment learning_rates)."""
RATES = MappingProxyType({"small_dense_equal_flops": 4e-3})
"""Those of arms that did best with another one."""


def scale(learning_rate: float = RATE, split: str = "test") -> Scale:
    """Model, text and training of every run.

    Args:
        learning_rate: peak; experiment learning_rates says how it was chosen.
        split: held-out text; "validation" is for choosing rates, "test" for all that is reported.
    """
    return Scale(
        NamedModel(layers=4, width=64, heads=2, vocabulary=768, positions=128, name="GPT-2, 4 layers"),
        DataSpec("opendocs", "default", train_bytes=24_000_000, evaluation_tokens=100_000),
        ProtocolSpec("bpe-768", sequence_length=128, stride=127, split=split),
        TrainingSpec(STEPS, batch_size=8, learning_rate=learning_rate, micro_batch_size=8, warmup_steps=195),
        start_step=195, end_step=2_930, interval=68, width_multiple=4,
    )  # fmt: skip


LLAMA_STEPS = 3_930
"""20 tokens for each of 201,216 block parameters, 1,024 tokens per step."""
LLAMA_RATE = 4e-3


def llama_scale(learning_rate: float = LLAMA_RATE, split: str = "test") -> Scale:
    """The same for a LLaMA of that size: gated feed-forward, rotary positions, head not tied, no weight decay.

    Args:
        learning_rate: peak; experiment learning_rates says how it was chosen.
        split: as for `scale`.
    """
    gpt2 = scale()
    return Scale(
        ScaledModel(layers=4, width=64, heads=2, vocabulary=768, positions=128, family="llama"),
        gpt2.data,
        ProtocolSpec("bpe-768", sequence_length=128, stride=127, split=split),
        TrainingSpec(
            LLAMA_STEPS, batch_size=8, learning_rate=learning_rate, micro_batch_size=8, warmup_steps=393,
            weight_decay=0.0,
        ),
        start_step=393, end_step=2_948, interval=63, width_multiple=4,
    )  # fmt: skip


IMAGE_STEPS = 6_250
"""Four epochs of 50,000 images in batches of 32: 65 tokens per block parameter, as an image is 65 tokens."""
IMAGE_RATE = 2e-3


def image_scale(learning_rate: float = IMAGE_RATE, split: str = "test") -> Scale:
    """The same for a ViT of the GPT-2's block parameters: 64 patches of 4x4 pixels and a class token, all of CIFAR-10.

    Args:
        learning_rate: peak; experiment learning_rates says how it was chosen.
        split: images that judge; "held-out" is for choosing rates, "test" for all that is reported.
    """
    return Scale(
        VisionModelSpec("vit_tiny_patch16_224", layers=4, width=64, heads=2, patch=4, size=32, classes=10),
        ImageDataSpec("cifar10", "plain_text"),
        ImageProtocolSpec(split, AugmentationSpec(flip=0.5)),
        TrainingSpec(
            IMAGE_STEPS, batch_size=32, learning_rate=learning_rate, micro_batch_size=32, warmup_steps=312,
            weight_decay=0.05,
        ),
        start_step=312, end_step=4_688, interval=109, width_multiple=4,
    )  # fmt: skip
