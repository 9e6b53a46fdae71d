"""Blocks of transformers that no family cuts, and why: an answer for those who ask for one of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping

_LATENT = "its queries and keys are made from a latent vector, and a rotary part of the keys is one for all heads"
_NO_ATTENTION = "it has no attention, whose heads could be cut"
_OWN_KERNEL = "its attention goes over a choice of positions by code of its own, which takes one width for all"
_OWN_CODE = "its attention is written out, without transformers' attention functions, and takes one width for all"

_REASONS = {
    _LATENT: "deepseek_v2:DeepseekV2DecoderLayer deepseek_v3:DeepseekV3DecoderLayer minicpm3:MiniCPM3DecoderLayer",
    _NO_ATTENTION: "fnet:FNetLayer mamba:MambaBlock mamba2:Mamba2Block falcon_mamba:FalconMambaBlock rwkv:RwkvBlock",
    _OWN_KERNEL: "big_bird:BigBirdLayer longformer:LongformerLayer led:LEDEncoderLayer reformer:ReformerLayer",
    _OWN_CODE: (
        "bloom:BloomBlock ctrl:EncoderLayer falcon:FalconDecoderLayer gpt_neo:GPTNeoBlock mpt:MptBlock "
        "megatron_bert:MegatronBertLayer rembert:RemBertLayer xlnet:XLNetLayer"
    ),
    "its one layer is run in the place of all layers, so that no layer could be cut by itself": "albert:AlbertLayer",
    "its relative positions pass through the query and key projections as well, and share their width": (
        "deberta:DebertaLayer deberta_v2:DebertaV2Layer"
    ),
    "it shifts windows over a picture whose width changes from stage to stage, with a position bias for every head": (
        "swin:SwinLayer swinv2:Swinv2Layer donut:DonutSwinLayer"
    ),
}


@functools.cache
def known_refusals() -> Mapping[str, str]:
    """Qualified name of a block's class -> why no family cuts it."""
    places = {place: reason for reason, named in _REASONS.items() for place in named.split()}
    return {
        f"transformers.models.{model}.modeling_{model}.{name}": reason
        for (model, name), reason in ((place.split(":"), reason) for place, reason in places.items())
    }
