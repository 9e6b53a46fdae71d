"""torch_pruning: the Torch-Pruning library, a peer that nobody here wrote, by its own recipe for transformers.

Source: Fang et al., DepGraph (arXiv 2301.12900), package torch-pruning (extra `peers`); the recipe is that of its
transformer examples. The library finds what is coupled by tracing the model, scores it and cuts it; only how much goes
from which layer is decided here.
Recipe: first-order Taylor importance of whole groups over the calibration data, which the library's own table puts
first; the same share in every layer ("uniform") of the inner widths alone ("bottleneck"): whole heads and FFN channels.
Equations: importance of an index = mean over the coupled matrices of sum |w dL/dw|, averaged over a head.
Faithful: BasePruner, GroupTaylorImportance, head counts and the attributes to mend afterwards as in the examples.
Changed: the examples name a ratio; here the ratios are those of `wanda_sp.uniform_shares`, so that the size lands
within one channel above the target. The residual width stays, although the examples can cut it too and the library's
ViT table has that ahead by 0.1 points after 300 epochs of training: here the target counts the blocks, and one-shot
methods are not trained afterwards. Found on one small LLaMA, one-shot at 0.60 to 0.63 of its blocks (loss 2.03 whole):
this recipe 2.06, all widths 2.25, either with one ranking over all layers 2.05, magnitude instead of Taylor 2.37.
What works, found with torch-pruning 1.6.1, transformers 5.24 and timm 1.0.31:
    BERT, RoBERTa, ViT, DeiT, timm ViT and DeiT, LLaMA, Mistral and Qwen2 with a key/value head per query head: yes
    GPT-2: no; the library does not know Conv1D and silently removes nothing
    grouped queries: no; with two query heads per key/value head the library's trace did not end in minutes (its issue
        527), with three it failed, with four it removed query heads alone
    query/key norms: no; timm fails inside the library, Qwen3 silently keeps its attention whole
What does not work is refused before the first step. After the cut the size must be the one that was asked for, and the
model must still run: otherwise this is an error, not a result.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from baselines.calibration import Calibration, accumulate_gradients, outputs
from baselines.cut_shapes import load_shapes, save_shapes
from baselines.method import Budget, TrainingMethod, architecture
from baselines.posttraining import PostTraining
from baselines.structures import Structures, most_removable, structures
from baselines.wanda_sp import uniform_shares
from ecospa import ConfigError, PairKind, UnsupportedModelError, coupled_pairs
from ecospa.accounting import parameters
from ecospa.families import transformer_blocks

Importance = Literal["taylor", "magnitude"]
QUERY_KEY_VALUE = {
    "bert": ("query", "key", "value"),
    "llama": ("q_proj", "k_proj", "v_proj"),
    "timm_vit": ("qkv",),
    "vit": ("q_proj", "k_proj", "v_proj"),
}
"""Projections of an attention module whose outputs are heads, per family that the method is defined for."""
_PROJECTIONS = {**QUERY_KEY_VALUE, "gpt2": ("c_attn",)}  # whoever asks for it nevertheless gets what the library does


class TorchPruning(TrainingMethod):
    """One-shot structured pruning by the Torch-Pruning library."""

    name: ClassVar[str] = "torch_pruning"
    title = "Torch-Pruning"
    removes = "structures"
    group = "structures by activations or weights"
    stage: ClassVar = "one-shot"
    architectures: ClassVar[frozenset[str]] = frozenset(QUERY_KEY_VALUE)
    needs_calibration: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, reachable=most_removable))

    def accept(self, model: nn.Module, calibration: Any) -> None:
        """Refuse what the library cannot prune, before anything is trained in vain.

        Raises:
            ConfigError: the library is not installed, or data is needed and not given.
            UnsupportedModelError: see the table of the module.
        """
        super().accept(model, calibration)
        find_library()
        for name in structures(model).heads:
            attention: Any = model.get_submodule(name)
            if getattr(attention, "num_key_value_groups", 1) != 1:
                reason = f"{attention.num_key_value_groups} query heads share a key/value head; its trace may not end"
            elif isinstance(getattr(attention, "q_norm", nn.Identity()), nn.Identity):
                continue
            else:
                reason = "queries and keys are normed, and it keeps such heads whole or fails"
            raise UnsupportedModelError(
                f"{name}: torch_pruning cannot prune this attention ({reason}); "
                "build the model with as many key/value heads as heads and without query/key norm, or leave it out"
            )

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write weights and shapes, before or after the cut."""
        save_shapes(model, folder)

    def load(self, folder: Path, dense: nn.Module) -> nn.Module:
        """Read what `save` wrote into `dense`, which gets its shapes.

        Raises:
            CheckpointError: a file is damaged or missing, or it belongs to another model.
        """
        return load_shapes(folder, dense)

    def _compress(self, model: nn.Module, excess: int) -> None:
        assert self.calibration is not None  # needs_calibration
        removed = {name: count for name, count in uniform_shares(model, excess).items() if count}
        if not removed:
            return
        found = structures(model)
        costs = {**found.head_parameters, **found.channel_parameters}
        asked = sum(count * costs[name] for name, count in removed.items())
        before, batch = parameters(model, "blocks"), self.calibration.batches[0]
        with ready(model):
            prune(model, removed, self.calibration)
            if (gone := before - parameters(model, "blocks")) != asked:
                raise UnsupportedModelError(
                    f"torch_pruning removed {gone or 'nothing'} of the {asked} parameters asked of "
                    f"{type(model).__name__}; the library does not know this model, leave the method out"
                )
            mend_counts(model, {name: count - removed.get(name, 0) for name, count in found.heads.items()})
            with torch.no_grad():
                outputs(model, batch)  # a model that no longer runs raises here


def prune(
    model: nn.Module, removed: Mapping[str, int], calibration: Calibration, importance: Importance = "taylor"
) -> None:
    """Let the library remove so many heads and channels from every layer, in place.

    Args:
        model: the model, made `ready`.
        removed: attention module or FFN pair -> how many (key/value) heads or channels go; others stay whole.
        calibration: data for the gradients; the model is traced with its first row.
        importance: "taylor" reads gradients, "magnitude" the weights alone.
    """
    library, found = find_library(), structures(model)
    parts = _PROJECTIONS[architecture(model)]
    projections = {name: [getattr(model.get_submodule(name), part) for part in parts] for name in found.heads}
    # half an index less than what goes: the library rounds heads up, and what stays of the channels down
    ratios = {
        name: max(0.0, removed.get(name, 0) - 0.5) / count for name, count in {**found.heads, **found.channels}.items()
    }
    channel_ratios = {
        model.get_submodule(axis.parameter.rpartition(".")[0]): ratios[pair.name]
        for pair in coupled_pairs(model)
        if pair.kind is PairKind.FFN
        for axis in pair.left
    }
    example = {name: value[:1] for name, value in calibration.batches[0].items() if name != "labels"}
    takes_cache = "use_cache" in inspect.signature(model.forward).parameters
    with warnings.catch_warnings():
        # of norms that it does not know; they lie on the residual stream, which is kept whole
        warnings.filterwarnings("ignore", "Unwrapped parameters detected")
        pruner = library.pruner.BasePruner(
            model,
            example | ({"use_cache": False} if takes_cache else {}),
            importance=getattr(library.importance, f"Group{importance.capitalize()}Importance")(),
            pruning_ratio=0.5,  # of head dimensions, which stay; at 0 the library would not look at heads either
            pruning_ratio_dict=channel_ratios,
            head_pruning_ratio_dict={own: ratios[name] for name, several in projections.items() for own in several},
            num_heads={own: heads for name in projections for own, heads in _heads(model, name, parts, found)},
            prune_num_heads=True,
            prune_head_dims=False,
            ignored_layers=_kept_whole(model),
            in_channel_groups={},  # the library's defaults are shared between calls
            out_channel_groups={},
            output_transform=lambda result: (result if isinstance(result, Tensor) else result.logits).sum(),
        )
    if importance == "taylor":
        accumulate_gradients(model, calibration)
    for group in pruner.step(interactive=True):
        group.prune()


def mend_counts(model: Any, heads: Mapping[str, int]) -> None:
    """Tell attention modules how many heads they have now, as the library's examples do.

    Args:
        model: the model after `prune`.
        heads: attention module -> heads that are left.
    """
    family = architecture(model)
    for name, count in heads.items():
        attention = model.get_submodule(name)
        width = getattr(attention, _PROJECTIONS[family][0]).weight.shape[0]
        new = {
            "num_heads": count, "num_attention_heads": count, "all_head_size": width, "attn_dim": width // 3,
        }  # fmt: skip
        for attribute in new.keys() & vars(attention).keys():
            setattr(attention, attribute, new[attribute])
    if family == "llama" and len(set(heads.values())) == 1:
        # its attention reads the number off the width; caches and accounts read it from the config
        model.config.num_attention_heads = model.config.num_key_value_heads = next(iter(heads.values()))


def find_library() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import torch_pruning
    except ImportError as error:
        message = f"torch_pruning needs the package torch-pruning ({error}); install the extra 'peers'"
        raise ConfigError(message) from error
    return torch_pruning


@contextmanager
def ready(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and gradients for frozen parameters too: the library overlooks what has none."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    was_training = model.training
    model.eval().requires_grad_(True)
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)


def _heads(model: nn.Module, name: str, parts: Sequence[str], found: Structures) -> Iterator[tuple[nn.Module, int]]:
    """The projections of an attention module with their heads: queries may have several per key/value head."""
    attention: Any = model.get_submodule(name)
    for part in parts:
        groups = getattr(attention, "num_key_value_groups", 1) if part == "q_proj" else 1
        yield getattr(attention, part), found.heads[name] * groups


def _kept_whole(model: nn.Module) -> list[nn.Module]:
    """What the library must not cut the outputs of: everything that writes the residual stream, or lies outside."""
    inside = {id(module) for block in transformer_blocks(model).values() for module in block.modules()}
    outside = [module for module in model.modules() if id(module) not in inside and not [*module.children()]]
    writers = [
        model.get_submodule(axis.parameter.rpartition(".")[0])
        for pair in coupled_pairs(model)
        if pair.kind is not PairKind.QK
        for axis in pair.right
    ]
    return outside + writers
