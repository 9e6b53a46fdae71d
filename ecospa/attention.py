"""Attention whose query/key width differs from its value width, by swapping the class of the user's own module.

A swapped module stays the same object: its parameters, hooks, name and place in the model are untouched, and it is
still an instance of its original class, so everything that looks for that class finds it. Only `forward` changes, and
one file per family in `ecospa/families` gives it. Three things keep the function of the uncut model: the softmax scale
of the original head width, the rotary frequencies of the surviving index pairs, and the original denominator of a
query/key norm (design choices; the paper's text on rotary embeddings is not known).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ecospa.class_swap import Swapped, swapped_class


@dataclass(frozen=True)
class HeadGeometry:
    """Widths of one attention module.

    Attributes:
        groups: key/value heads.
        repeats: query heads per key/value head.
        head_width: width of a head before anything was cut; fixes scale and norm denominator.
        qk_width: current query/key width per head.
        vo_width: current value width per head.
        tracked: the module must know which original query/key indices survive (rotary embedding or query/key norm).
    """

    groups: int
    repeats: int
    head_width: int
    qk_width: int
    vo_width: int
    tracked: bool = False

    @property
    def query_heads(self) -> int:
        """Number of query heads: groups * repeats."""
        return self.groups * self.repeats


class CoupledAttention(Swapped):
    """Base of every family's attention: `forward` of the family over the parameters of the original class."""

    prefix = "Coupled"
    geometry: HeadGeometry
    kept_qk: Tensor  # int64 (groups, qk_width), original index of every surviving one; only where geometry.tracked
    traced_for: str | None = None  # the device whose kernels a copy without weights stands for
    takes_cache = False  # the class's own forward calls the key/value cache `cache`, and hands it its other arguments

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "original" in vars(cls):  # read once: the forward pass may be compiled
            cls.takes_cache = "cache" in inspect.signature(cls.original.forward).parameters


def swap_attention(
    module: nn.Module, mixin: type[CoupledAttention], geometry: HeadGeometry, persistent: bool = True
) -> None:
    """Give an attention module the class with the family's forward, at its first cut.

    Args:
        module: the user's attention module.
        mixin: the family's forward.
        geometry: its widths now.
        persistent: checkpoints hold the indices that are kept; needless where nothing was cut.
    """
    if isinstance(module, CoupledAttention):
        return
    module.__class__ = swapped_class(type(module), mixin)
    if geometry.tracked:
        module.register_buffer("kept_qk", original_indices(module, geometry), persistent=persistent)


def original_indices(module: nn.Module, geometry: HeadGeometry) -> Int64[Tensor, "groups qk_width"]:
    """Original index of every query/key index that an attention module has now; all of them before the first cut.

    Args:
        module: attention module, swapped or not, whose surviving indices are tracked.
        geometry: its widths now.
    """
    known = module._buffers.get("kept_qk")
    if known is not None:
        return known
    device = next(module.parameters()).device
    return torch.arange(geometry.head_width, device=device).repeat(geometry.groups, 1)


def attend(
    module: Any,
    query: Float[Tensor, "batch heads time qk"],
    key: Float[Tensor, "batch cached past cached_qk"],
    value: Float[Tensor, "batch cached past cached_vo"],
    mask: Tensor | None,
    **options: Any,
) -> tuple[Float[Tensor, "batch time heads vo"], Tensor | None]:
    """softmax(scale * Q K^T + mask) V through transformers' attention interface, for any two widths.

    The fused kernels of the CPU and of flash attention want equal widths, so the narrower side is padded with zeros
    there: zero columns of Q and K add nothing to the scores, and zero columns of V are cut off the output again. A
    single query on the CPU goes without the kernel, because padding would copy all keys or values for every new token.

    Args:
        module: attention module with a transformers `config`.
        query: (batch, query heads, time, qk width).
        key: (batch, key/value heads, time with cache, qk width); wider and with more heads where `extend_cache` padded.
        value: (batch, key/value heads, time with cache, vo width), likewise.
        mask: as the interface wants it.
        options: passed on; must hold `scaling`, the scale of the original head width.

    Returns:
        Output (batch, time, query heads, vo width), and the attention weights where the implementation gives them.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    implementation = module.config._attn_implementation or "eager"
    eager: Callable[..., Any] = sys.modules[type(module).original.__module__].eager_attention_forward
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)
    heads, width = query.shape[1], module.geometry.vo_width
    if key.shape[-1] != query.shape[-1]:  # a paged cache, which holds what an uncut model would
        query = _pad_heads(query, key.shape[1] * module.geometry.repeats, key.shape[-1])
    if query.shape[-1] != value.shape[-1] and wants_equal_widths(implementation, kernel_device(module, query)):
        plain = not options.get("dropout") and options.get("position_bias") is None
        if implementation == "sdpa" and query.shape[2] == 1 and plain:
            return attend_from_one(query, key, value, mask, options["scaling"]), None
        query, key, value = pad_to_equal(query, key, value)
    output, weights = interface(module, query, key, value, mask, **options)
    if output.shape[-2:] != (heads, width):  # whole otherwise: a view costs a call, too
        output = output[..., :heads, :width]
    return output, weights


def attend_from_one(
    query: Float[Tensor, "batch heads 1 qk"],
    key: Float[Tensor, "batch groups past qk"],
    value: Float[Tensor, "batch groups past vo"],
    mask: Tensor | None,
    scaling: float,
) -> Float[Tensor, "batch 1 heads vo"]:
    """softmax(scale * q K^T + mask) V for one query per sequence, keys and values read where they are.

    Args:
        query: (batch, query heads, 1, qk width).
        key: (batch, key/value heads, time, qk width).
        value: (batch, key/value heads, time, vo width).
        mask: (batch or 1, query heads or 1, 1, time or more), boolean (True attends) or added to the scores.
        scaling: scale of the scores.

    Returns:
        (batch, 1, query heads, vo width).
    """
    batch, heads, _, width = query.shape
    groups, past = key.shape[1], key.shape[2]
    scores = (query.reshape(batch, groups, -1, width) * scaling) @ key.transpose(-1, -2)
    if mask is not None:
        mask = mask[..., :past].expand(-1, heads, 1, -1).reshape(-1, groups, heads // groups, past)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return (weights @ value).reshape(batch, 1, heads, -1)


def extend_cache(
    module: Any, key: Tensor, value: Tensor, given: Any, options: dict[str, Any]
) -> tuple[Float[Tensor, "batch cached past cached_qk"], Float[Tensor, "batch cached past cached_vo"]]:
    """Keys and values of all tokens so far: those of a key/value cache, with the new ones added to it.

    transformers calls the cache `past_key_values` up to release 5.23 and `cache` from 5.24 on, where the cache is also
    handed the other arguments and may change them. The paged cache of continuous batching has the heads and the width
    of the configuration, so keys and values are padded to those with zeros, which add nothing to scores and outputs.

    Args:
        module: attention module with a `layer_idx`.
        key: (batch, key/value heads, time, qk width), new.
        value: (batch, key/value heads, time, vo width), new.
        given: the cache by its older name, or None.
        options: the other arguments of the forward pass; the cache is taken out of them where the release gives it
            under its newer name, and left where the attention function expects it there.

    Returns:
        Keys and values to attend to; the new ones alone without a cache.
    """
    newer = options.pop("cache", None) if module.takes_cache else None
    cache = newer if given is None else given
    paged = _is_paged(options.get("cache") if cache is None else cache)
    if paged:
        heads = getattr(module.config, "num_key_value_heads", None) or module.config.num_attention_heads
        key, value = (_pad_heads(states, heads, module.geometry.head_width) for states in (key, value))
    if cache is None:
        return key, value
    kept = getattr(cache, "self_attention_cache", cache)
    handed = {"kwargs": options} if paged or module.takes_cache else {}
    extended: tuple[Tensor, Tensor] = kept.update(key, value, module.layer_idx, **handed)
    return extended


def extend_cross_cache(
    module: Any, states: Tensor, names: tuple[str, ...], given: Any, options: dict[str, Any]
) -> tuple[Float[Tensor, "batch heads past qk"], Float[Tensor, "batch heads past vo"]]:
    """Keys and values of another sequence: made once, and read from the cache for every further token.

    Args:
        module: attention module with a `layer_idx`.
        states: (batch, past, features) of the other sequence, such as the encoder's.
        names: the projections of keys and of values.
        given: the cache by its older name, or None; see `extend_cache`.
        options: the other arguments of the forward pass; the cache is taken out of them where it is there.
    """
    newer = options.pop("cache", None) if module.takes_cache else None
    cache = newer if given is None else given
    filled = getattr(cache, "is_updated", None)  # of an encoder-decoder cache
    kept: Any = getattr(cache, "cross_attention_cache", cache)
    if filled is not None and filled.get(module.layer_idx):
        layer = kept.layers[module.layer_idx]
        return layer.keys, layer.values
    key, value = (split_heads(getattr(module, name)(states), module.geometry.groups) for name in names)
    if cache is not None:
        handed = {"kwargs": options} if module.takes_cache else {}
        key, value = kept.update(key, value, module.layer_idx, **handed)
        if filled is not None:
            filled[module.layer_idx] = True
    return key, value


def _is_paged(cache: Any) -> bool:
    return type(cache).__name__ == "PagedAttentionCache"  # by name: its module takes long to import


def _pad_heads(states: Tensor, heads: int, width: int) -> Tensor:
    return nn.functional.pad(states, (0, width - states.shape[-1], 0, 0, 0, heads - states.shape[1]))


def pad_to_equal(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pad the narrower of query/key and value with zero columns to the width of the other."""
    gap = query.shape[-1] - value.shape[-1]
    if gap > 0:
        return query, key, nn.functional.pad(value, (0, gap))
    return nn.functional.pad(query, (0, -gap)), nn.functional.pad(key, (0, -gap)), value


def kernel_device(module: Any, states: Tensor) -> str:
    """Type of the device whose kernels an attention module meets: that of its inputs, or what a trace stands for."""
    return module.traced_for or states.device.type


def wants_equal_widths(implementation: str, device: str) -> bool:
    """Return whether an implementation's kernel pads: the CPU's fused one and flash attention take equal widths only.

    CUDA's memory-efficient and cuDNN kernels take unequal ones.
    """
    return "flash" in implementation or (implementation == "sdpa" and device == "cpu")


def split_heads(states: Float[Tensor, "batch time features"], heads: int) -> Float[Tensor, "batch heads time width"]:
    """(batch, time, heads * width) -> (batch, heads, time, width)."""
    return states.view(*states.shape[:-1], heads, -1).transpose(1, 2)


def surviving_tables(
    cos: Float[Tensor, "one_or_batch time head_width"],
    sin: Float[Tensor, "one_or_batch time head_width"],
    kept: Int64[Tensor, "groups width"],
) -> tuple[Float[Tensor, "one_or_batch groups 1 time width"], Float[Tensor, "one_or_batch groups 1 time width"]]:
    """Rotary tables of the surviving indices, one for queries and keys alike.

    Args:
        cos: (1 or batch, time, original head width).
        sin: same shape.
        kept: original index of every surviving one, per key/value head.

    Returns:
        Cosines and sines at the ORIGINAL indices, (1 or batch, key/value heads, 1, time, width).
    """
    flat, sizes = kept.flatten(), (*cos.shape[:2], *kept.shape)
    first, second = (table.index_select(-1, flat).view(sizes).transpose(1, 2).unsqueeze(2) for table in (cos, sin))
    return first, second


def rotate(
    states: Float[Tensor, "batch heads time width"],
    cos: Float[Tensor, "one_or_batch groups 1 time width"],
    sin: Float[Tensor, "one_or_batch groups 1 time width"],
) -> Float[Tensor, "batch heads time width"]:
    """Rotary embedding of surviving indices, each at its original frequency.

    x_j <- x_j cos_j - x_{j + n/2} sin_j and x_{j + n/2} <- x_{j + n/2} cos_j + x_j sin_j; couples stay in the order
    [first halves | second halves].

    Args:
        states: query or key heads; heads is groups times the query heads of a group.
        cos: of `surviving_tables`, (1 or batch, key/value heads, 1, time, width).
        sin: same shape.

    Returns:
        Rotated heads, same shape.
    """
    batch, _, time, width = states.shape
    grouped = states.reshape(batch, cos.shape[1], -1, time, width)
    first, second = grouped.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    result: Tensor = (grouped * cos + turned * sin).flatten(1, 2)
    return result


def head_rms_norm(
    states: Float[Tensor, "batch heads time width"],
    weight: Float[Tensor, " head_width"],
    eps: float,
    kept: Int64[Tensor, "groups width"],
) -> Float[Tensor, "batch heads time width"]:
    """RMS norm over surviving indices with the denominator of the original head width.

    x_j * w_j / sqrt(sum_k x_k^2 / head_width + eps): what the uncut norm gives when the removed entries are zero.

    Args:
        states: query or key heads.
        weight: norm weight, kept whole because all heads share it.
        eps: the norm's epsilon.
        kept: original index of every surviving one, per key/value head.

    Returns:
        Normed heads, same shape and dtype.
    """
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    mean_square = wide.square().sum(-1, keepdim=True) / weight.shape[0]
    batch, _, time, width = states.shape
    normed = (wide * torch.rsqrt(mean_square + eps)).to(states.dtype).reshape(batch, kept.shape[0], -1, time, width)
    result: Tensor = (weight[kept][None, :, None, None] * normed).flatten(1, 2)
    return result
