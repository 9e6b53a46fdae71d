"""VisionTransformer of timm, distilled DeiT too: fused qkv in one Linear (paper: DeiT on ImageNet).

timm's fused path passes no scale, so the kernel would take it from the current width; here the original head width
fixes it. A query/key norm keeps the statistics of the original width. Behind a LayerNorm a removed entry is not zero:
it becomes (0 - mean) / deviation * weight + bias, and its share of every score is kept in two more columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ecospa.attention import CoupledAttention, HeadGeometry, kernel_device, pad_to_equal, split_heads
from ecospa.families import Family, require_plain, unsupported
from ecospa.pairs import CoupledPair, PairKind, head_index, input_axes, output_axes
from ecospa.stock import ACTIVATION, DROPOUT, IDENTITY, LINEAR, qualified

_NORMS = (
    *IDENTITY,
    "torch.nn.modules.normalization.LayerNorm",
    "torch.nn.modules.normalization.RMSNorm",
    *(f"timm.layers.norm.{name}" for name in ("LayerNorm", "LayerNormFp32", "RmsNorm", "RmsNormFp32")),
)
"""Norms of queries and keys whose function is known here."""


class TimmCoupledAttention(CoupledAttention):
    """timm attention; qkv holds [queries | keys | values] with widths a, a and b per head."""

    def forward(self: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Self attention as in timm, always with the scale of the original head width."""
        heads, qk, vo = self.geometry.groups, self.geometry.qk_width, self.geometry.vo_width
        fused = self.qkv(x).split([heads * qk, heads * qk, heads * vo], dim=-1)
        query, key, value = (split_heads(states, heads) for states in fused)
        query, key = normed_heads(query, key, self.q_norm, self.k_norm, getattr(self, "kept_qk", None))
        scale = self.geometry.head_width**-0.5
        if self.fused_attn:
            if query.shape[-1] != vo and kernel_device(self, x) == "cpu":
                query, key, value = pad_to_equal(query, key, value)
            dropout = self.attn_drop.p if self.training else 0.0
            output = nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=attn_mask, dropout_p=dropout, is_causal=is_causal, scale=scale
            )[..., :vo]
        else:
            scores = _masked((query * scale) @ key.transpose(-2, -1), attn_mask, is_causal)
            output = self.attn_drop(scores.softmax(dim=-1)) @ value
        result: Tensor = self.proj_drop(self.proj(output.transpose(1, 2).flatten(-2)))
        return result


def _masked(scores: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    if is_causal:
        time = scores.shape[-1]
        mask = torch.ones(time, time, dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return scores
    return scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask


def normed_heads(
    query: Float[Tensor, "batch heads time qk"],
    key: Float[Tensor, "batch heads time qk"],
    q_norm: nn.Module,
    k_norm: nn.Module,
    kept: Int64[Tensor, "heads qk"] | None,
) -> tuple[Float[Tensor, "batch heads time columns"], Float[Tensor, "batch heads time columns"]]:
    """Queries and keys behind their norms, whose scores are those of the original width with removed entries at zero.

    With c = -mean / deviation a removed entry j becomes c w_j + b_j behind a LayerNorm, so a head lacks

    sum_removed (c_q w_j + b_j)(c_k w'_j + b'_j) = [c_q, 1] [[sum w w', sum w b'], [sum b w', sum b b']] [c_k, 1]^T

    which two more columns of queries and keys hold. Behind an RMS norm, or without a norm, removed entries stay zero.

    Args:
        query: heads before the norm.
        key: likewise.
        q_norm: norm of the queries; its weights are whole, because all heads share them.
        k_norm: norm of the keys.
        kept: original index of every surviving one, per head; None where there is no norm.

    Returns:
        Queries and keys, two columns wider where both norms are LayerNorms and something was removed.
    """
    if kept is None:
        return query, key
    (query, q_shift), (key, k_shift) = _head_norm(query, q_norm, kept), _head_norm(key, k_norm, kept)
    if q_shift is None or k_shift is None or kept.shape[1] == (full := _width(q_norm)):
        return query, key
    gone = torch.ones(kept.shape[0], full, dtype=torch.bool, device=kept.device).scatter(1, kept, False)
    first, second = (_weight_and_bias(norm, q_shift) for norm in (q_norm, k_norm))  # (2, original head width)
    removed = torch.einsum("hj,aj,bj->hab", gone.to(q_shift.dtype), first, second)
    left = torch.cat((q_shift, torch.ones_like(q_shift)), -1) @ removed[None]
    right = torch.cat((k_shift, torch.ones_like(k_shift)), -1)
    return torch.cat((query, left.to(query.dtype)), -1), torch.cat((key, right.to(key.dtype)), -1)


def _head_norm(states: Tensor, norm: Any, kept: Tensor) -> tuple[Tensor, Tensor | None]:
    """Normed heads, and -mean / deviation of each, (batch, heads, time, 1), where removed entries do not stay zero."""
    if isinstance(norm, nn.Identity):
        return states, None
    full, count = _width(norm), states.shape[-1]
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    eps = torch.finfo(states.dtype).eps if norm.eps is None else norm.eps
    shift = None
    if isinstance(norm, nn.LayerNorm):
        mean = wide.sum(-1, keepdim=True) / full
        wide = wide - mean
        # the removed entries are zero, and so lie a mean away from it
        scale = torch.rsqrt((wide.square().sum(-1, keepdim=True) + (full - count) * mean.square()) / full + eps)
        shift = -mean * scale
    else:
        scale = torch.rsqrt(wide.square().sum(-1, keepdim=True) / full + eps)
    weight, bias = _weight_and_bias(norm, wide)
    return (wide * scale * weight[kept][None, :, None] + bias[kept][None, :, None]).to(states.dtype), shift


def _width(norm: Any) -> int:
    return int(norm.normalized_shape[-1])


def _weight_and_bias(norm: Any, like: Tensor) -> Tensor:
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    ones = like.new_ones(_width(norm))
    return torch.stack(
        (ones if weight is None else weight.to(like.dtype), ones * 0 if bias is None else bias.to(like.dtype))
    )


def geometry(attention: Any) -> HeadGeometry:
    """Widths of a timm attention module."""
    if isinstance(attention, CoupledAttention):
        return attention.geometry
    width = attention.head_dim
    normed = not all(isinstance(norm, nn.Identity) for norm in (attention.q_norm, attention.k_norm))
    return HeadGeometry(attention.num_heads, 1, width, width, width, tracked=normed)


def _check(name: str, block: Any) -> None:
    attention, mlp = block.attn, block.mlp
    for label, norm in (("attn.q_norm", attention.q_norm), ("attn.k_norm", attention.k_norm)):
        found = qualified(type(norm))
        if found not in _NORMS:
            raise unsupported(f"{name}.{label}", f"{found} is not known here; {', '.join(_NORMS)} are")
        if "forward" in vars(norm):
            raise unsupported(f"{name}.{label}", "its forward was replaced on the instance", "remove the replacement")
        if found not in IDENTITY and tuple(norm.normalized_shape) != (attention.head_dim,):
            raise unsupported(f"{name}.{label}", f"it normalises {tuple(norm.normalized_shape)}, not one head")
    kind = attention.original if isinstance(attention, CoupledAttention) else type(attention)
    if (kind.__module__, kind.__name__) != ("timm.layers.attention", "Attention"):
        raise unsupported(f"{name}.attn", f"{kind.__module__}.{kind.__name__} is not timm's plain Attention")
    if getattr(attention, "gate", None) is not None:
        raise unsupported(f"{name}.attn.gate", "a gated attention multiplies the value width", "build it ungated")
    if not isinstance(getattr(attention, "norm", None) or nn.Identity(), nn.Identity):
        raise unsupported(f"{name}.attn.norm", "a norm over the whole attention width mixes all heads")
    if type(mlp).__name__ != "Mlp" or not isinstance(getattr(mlp, "norm", None) or nn.Identity(), nn.Identity):
        raise unsupported(f"{name}.mlp", f"{type(mlp).__name__} with a norm or gate is not timm's plain Mlp")


def find(name: str, block: Any) -> Iterator[CoupledPair]:
    """QK, VO and FFN pair of one timm Block."""
    _check(name, block)
    attention, mlp = f"{name}.attn", f"{name}.mlp"
    qkv, proj, fc1, fc2 = f"{attention}.qkv", f"{attention}.proj", f"{mlp}.fc1", f"{mlp}.fc2"
    require_plain({qkv: block.attn.qkv, proj: block.attn.proj, fc1: block.mlp.fc1, fc2: block.mlp.fc2})
    shape = geometry(block.attn)
    heads, qk, vo = shape.groups, shape.qk_width, shape.vo_width
    query, key = head_index(heads, qk), head_index(heads, qk, offset=heads * qk)
    value, hidden = head_index(heads, vo, offset=2 * heads * qk), head_index(1, block.mlp.fc1.weight.shape[0])

    left, right = output_axes(qkv, block.attn.qkv, query), output_axes(qkv, block.attn.qkv, key)
    yield CoupledPair(f"{attention}.qk", PairKind.QK, heads, qk, 1, attention, name, left, right)
    left = output_axes(qkv, block.attn.qkv, value)
    right = input_axes(proj, block.attn.proj, head_index(heads, vo))
    yield CoupledPair(f"{attention}.vo", PairKind.VO, heads, vo, 1, attention, name, left, right)
    left, right = output_axes(fc1, block.mlp.fc1, hidden), input_axes(fc2, block.mlp.fc2, hidden)
    yield CoupledPair(f"{mlp}.ffn", PairKind.FFN, 1, hidden.shape[1], 1, mlp, name, left, right)


_LAYERS = "timm.layers"
_SCALES = frozenset(f"timm.{home}.LayerScale" for home in ("layers.layer_scale", "models.vision_transformer"))
_PATH = IDENTITY | _SCALES | {f"{_LAYERS}.drop.DropPath"}

FAMILY = Family(
    name="VisionTransformer, DeiT (timm)",
    blocks=frozenset({"timm.models.vision_transformer.Block"}),
    find=find,
    attention=TimmCoupledAttention,
    geometry=geometry,
    stock={
        "": frozenset({"timm.models.vision_transformer.Block"}),
        "attn": frozenset({f"{_LAYERS}.attention.Attention"}),
        "mlp": frozenset({f"{_LAYERS}.mlp.Mlp"}),
        "mlp.act": ACTIVATION,
        **dict.fromkeys(("attn.norm", "mlp.norm"), IDENTITY),
        **dict.fromkeys(("norm1", "norm2", "attn.q_norm", "attn.k_norm"), frozenset(_NORMS)),
        **dict.fromkeys(("ls1", "ls2", "drop_path1", "drop_path2"), _PATH),
        **dict.fromkeys(("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"), LINEAR),
        **dict.fromkeys(("attn.attn_drop", "attn.proj_drop", "mlp.drop1", "mlp.drop2"), DROPOUT),
    },
)
