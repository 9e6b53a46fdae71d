"""A cut model as one that plain transformers builds: every weight at a place that it had, zeros everywhere else.

A zero column of W_Q, a zero row of W_O or a zero unit of a feed-forward layer adds nothing, so the wider model is the
same function. Rotary indices return to the places whose frequencies they kept; where no place means anything, the first
ones are taken.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from ecospa.attention import CoupledAttention
from ecospa.families import coupled_pairs, unsupported
from ecospa.pairs import CoupledPair, PairKind, WeightAxis
from ecospa.timm_models import without_weights
from ecospa.wrappers import unwrapped

Fit = Literal["nearest", "original"]

_HIDDEN = ("intermediate_size", "n_inner", "ffn_dim", "encoder_ffn_dim", "d_ff", "ffn_hidden_size")
"""Names that configurations have for the hidden width of the feed-forward layers."""
_HEADS = ("num_key_value_heads", "num_attention_heads")
_BIASES = ("attention_bias", "mlp_bias")


class Move(NamedTuple):
    """Entries of one parameter that go to other places along one axis."""

    axis: int
    source: Int64[Tensor, " entries"]
    target: Int64[Tensor, " entries"]


def padded(model: nn.Module, fit: Fit = "nearest") -> Any:
    """A dense model of the same class that computes what a cut one computes.

    Args:
        model: a transformers model, cut or whole; it is not changed.
        fit: "nearest" has the narrowest feed-forward layers and the fewest key/value heads that the class can have in
            all layers alike; "original" the widths from before the first cut. The width of a head is the original one
            either way, because scale and rotary frequencies hang on it.

    Returns:
        A new model on the CPU in evaluation mode, whose configuration says nothing of ecospa.

    Raises:
        UnsupportedModelError: it is no transformers model, or has biases for which its class has no place.

    Source: none in the paper; zero entries of a coupled pair add nothing to its product.
    """
    cut = unwrapped(model)
    pairs = coupled_pairs(cut)
    wide = built(type(cut), _config(cut, pairs, fit), _dtype(cut))
    pad_into(wide, cut, pairs)
    return wide.eval()


def padded_shape(model: nn.Module, fit: Fit = "nearest") -> Any:
    """The model that `padded` would give, on the meta device: its sizes without its weights.

    Args:
        model, fit: as for `padded`.

    Raises:
        UnsupportedModelError: as for `padded`.
    """
    cut = unwrapped(model)
    config = _config(cut, coupled_pairs(cut), fit)
    with without_weights():
        return built(type(cut), config, _dtype(cut))


@torch.no_grad()
def pad_into(wide: nn.Module, cut: nn.Module, pairs: Sequence[CoupledPair]) -> None:
    """Fill a wider model of the same class with the weights of a cut one, and with zeros.

    Args:
        wide: a freshly built model, of no smaller width anywhere.
        cut: the cut model.
        pairs: its pairs.

    Raises:
        UnsupportedModelError: a parameter of the cut model has no place in the wider one.
    """
    moves = _moves(cut, pairs, {pair.name: pair for pair in coupled_pairs(wide)})
    own = {**dict(cut.named_parameters()), **dict(cut.named_buffers())}
    places = dict(wide.named_parameters(remove_duplicate=False))
    for name, value in cut.named_parameters():
        if name not in places:
            raise unsupported(name, f"{type(wide).__qualname__} has no place for it", "export it as hf-auto")
        place = places[name]
        if name in moves:
            _scatter(place, value, moves[name])
        else:
            place.copy_(value)
    for name, place in wide.named_parameters():
        if name not in own:
            place.zero_()  # a bias that this layer does not have, and another one does
    for name, buffer in wide.named_buffers():
        if name in own:
            buffer.copy_(own[name])


def _scatter(place: Tensor, value: Tensor, moves: Sequence[Move]) -> None:
    """Put the entries of one parameter at their places; moves of one parameter are all along one axis."""
    axis = moves[0].axis
    source, target = (torch.cat([getattr(move, side) for move in moves]) for side in ("source", "target"))
    place.zero_()
    place.index_copy_(axis, target, value.detach().to(place).index_select(axis, source))


def _moves(cut: nn.Module, pairs: Sequence[CoupledPair], wide: Mapping[str, CoupledPair]) -> dict[str, list[Move]]:
    """Parameter -> where its entries go."""
    found: dict[str, list[Move]] = {}
    for pair in pairs:
        rows = _rows(cut, pair)
        for mine, theirs in _same_axes(pair, wide[pair.name]):
            target = theirs.index[: pair.groups].gather(1, rows[:, :, None].expand(-1, -1, theirs.index.shape[2]))
            move = Move(mine.axis, mine.index.flatten(), target.flatten())
            found.setdefault(mine.parameter, []).append(move)
    return found


def _same_axes(pair: CoupledPair, other: CoupledPair) -> Iterator[tuple[WeightAxis, WeightAxis]]:
    """Axes of one parameter on one side of both pairs; the other may have biases that the first one lacks.

    A fused gate and up are two axes of one parameter, in the same order in both.
    """
    for mine, theirs in ((pair.left, other.left), (pair.right, other.right)):
        for name in dict.fromkeys(axis.parameter for axis in mine):
            own, known = ([axis for axis in side if axis.parameter == name] for side in (mine, theirs))
            yield from zip(own, known, strict=bool(known))


def _rows(cut: nn.Module, pair: CoupledPair) -> Int64[Tensor, "groups width"]:
    """Original index of every index of a pair, where it means something; else the first ones."""
    module = cut.get_submodule(pair.module)
    if pair.kind is PairKind.QK and isinstance(module, CoupledAttention) and module.geometry.tracked:
        return module.kept_qk.cpu()
    return torch.arange(pair.width).repeat(pair.groups, 1)


def _config(cut: Any, pairs: Sequence[CoupledPair], fit: Fit) -> Any:
    """The configuration of the wider model."""
    if not hasattr(type(cut), "_from_config"):
        raise unsupported("", f"{type(cut).__qualname__} is no transformers model", "save it with save_pretrained")
    config = _dense_config(cut)
    if fit == "nearest":
        _narrow(config, cut, pairs)
    return config


def _dense_config(cut: Any) -> Any:
    """The configuration of the dense model, with biases where the cut one was given some."""
    config = plain_config(cut)
    if (getattr(cut.config, "ecospa", None) or {}).get("biases"):
        for field in _BIASES:
            if hasattr(config, field):
                setattr(config, field, True)
    return config


def plain_config(cut: Any) -> Any:
    """A copy of a transformers model's configuration that says nothing of ecospa.

    Args:
        cut: the model.
    """
    config = copy.deepcopy(cut.config)
    if hasattr(config, "ecospa"):
        del config.ecospa
    return config


def _narrow(config: Any, cut: nn.Module, pairs: Sequence[CoupledPair]) -> None:
    """Write the narrowest common shape into a configuration, as far as its class can have it."""
    hidden = max((pair.width for pair in pairs if pair.kind is PairKind.FFN), default=0)
    for field in _HIDDEN:
        if hidden and hasattr(config, field) and _fits(cut, _with(config, {field: hidden}), PairKind.FFN, hidden):
            setattr(config, field, hidden)
            break
    attention = [pair for pair in pairs if pair.kind is PairKind.VO]
    groups = max((pair.groups for pair in attention), default=0)
    if not groups or not all(hasattr(config, field) for field in (*_HEADS, "head_dim")):
        return
    repeats = attention[0].query_heads // attention[0].groups
    fewer = dict(zip(_HEADS, (groups, groups * repeats), strict=True))
    if groups < config.num_key_value_heads and _fits(cut, _with(config, fewer), PairKind.VO, None):
        for field, heads in fewer.items():
            setattr(config, field, heads)


def _with(config: Any, changes: Mapping[str, int]) -> Any:
    changed = copy.deepcopy(config)
    for field, value in changes.items():
        setattr(changed, field, value)
    return changed


def _fits(cut: nn.Module, config: Any, kind: PairKind, width: int | None) -> bool:
    """Return whether the class builds a configuration with this width in every pair of a kind, and all else as it is.

    A field may size other layers as well, such as the pooling head of a vision tower, which no cut has narrowed.
    """
    with without_weights():
        dense = built(type(cut), config, torch.float32)
    pairs = coupled_pairs(dense)
    in_pairs = {axis.parameter for pair in pairs for axis in pair.axes}
    own = dict(cut.named_parameters())
    others = ((name, value) for name, value in dense.named_parameters() if name in own and name not in in_pairs)
    return all(width in (None, pair.width) for pair in pairs if pair.kind is kind) and all(
        own[name].shape == value.shape for name, value in others
    )


def built(kind: Any, config: Any, dtype: torch.dtype) -> Any:
    """A freshly built model.

    Args:
        kind: class of transformers.
        config: its configuration.
        dtype: of its parameters.
    """
    return kind._from_config(config, dtype=dtype)


def _dtype(model: nn.Module) -> torch.dtype:
    return next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
