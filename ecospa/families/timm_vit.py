"""VisionTransformer of timm, distilled DeiT too: fused qkv in one Linear (paper: DeiT on ImageNet).

timm's fused path passes no scale, so the kernel would take it from the current width; here the original head width
fixes it. A query/key LayerNorm keeps the mean and variance of the original width.
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


class TimmCoupledAttention(CoupledAttention):
    """timm attention; qkv holds [queries | keys | values] with widths a, a and b per head."""

    def forward(self: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Self attention as in timm, always with the scale of the original head width."""
        heads, qk, vo = self.geometry.groups, self.geometry.qk_width, self.geometry.vo_width
        fused = self.qkv(x).split([heads * qk, heads * qk, heads * vo], dim=-1)
        query, key, value = (split_heads(states, heads) for states in fused)
        if isinstance(self.q_norm, nn.LayerNorm):
            query, key = (
                head_layer_norm(states, norm.weight, norm.bias, norm.eps, self.kept_qk)
                for states, norm in ((query, self.q_norm), (key, self.k_norm))
            )
        scale = self.geometry.head_width**-0.5
        if self.fused_attn:
            if qk != vo and kernel_device(self, x) == "cpu":
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


def head_layer_norm(
    states: Float[Tensor, "batch heads time width"],
    weight: Float[Tensor, " head_width"],
    bias: Float[Tensor, " head_width"] | None,
    eps: float,
    kept: Int64[Tensor, "heads width"],
) -> Float[Tensor, "batch heads time width"]:
    """Layer norm over surviving indices, with mean and variance over the original head width d.

    mu = sum_kept x / d and var = (sum_kept (x - mu)^2 + (d - n) mu^2) / d, as if the removed entries were zero.

    Args:
        states: query or key heads, n wide.
        weight: norm weight, kept whole because all heads share it.
        bias: norm bias, likewise, or None.
        eps: the norm's epsilon.
        kept: original index of every surviving one, per head.

    Returns:
        Normed heads, same shape.
    """
    full, kept_width = weight.shape[0], states.shape[-1]
    mean = states.sum(-1, keepdim=True) / full
    centred = states - mean
    variance = (centred.square().sum(-1, keepdim=True) + (full - kept_width) * mean.square()) / full
    normed = centred * torch.rsqrt(variance + eps) * weight[kept][None, :, None]
    return normed if bias is None else normed + bias[kept][None, :, None]


def geometry(attention: Any) -> HeadGeometry:
    """Widths of a timm attention module."""
    if isinstance(attention, CoupledAttention):
        return attention.geometry
    width, normed = attention.head_dim, not isinstance(attention.q_norm, nn.Identity)
    return HeadGeometry(attention.num_heads, 1, width, width, width, tracked=normed)


def _check(name: str, block: Any) -> None:
    attention, mlp = block.attn, block.mlp
    for label, norm in (("attn.q_norm", attention.q_norm), ("attn.k_norm", attention.k_norm)):
        affine = isinstance(norm, nn.LayerNorm) and norm.weight is not None
        if not affine and not isinstance(norm, nn.Identity):
            raise unsupported(f"{name}.{label}", f"{type(norm).__name__} is not known here; an affine LayerNorm is")
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


FAMILY = Family(
    name="VisionTransformer, DeiT (timm)",
    blocks=frozenset({"timm.models.vision_transformer.Block"}),
    find=find,
    attention=TimmCoupledAttention,
    geometry=geometry,
)
