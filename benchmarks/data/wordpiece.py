"""WordPiece tokenizers for encoders: BERT's own, or a small one of its kind trained on the training side.

A pair of texts becomes `[CLS] first [SEP] second [SEP]` with token types 0 and 1, padded to a fixed length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.data.source import files_key, mirror_folder
from benchmarks.data.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAINED_PREFIX = "wordpiece-"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def pair_tokenizer(name: str, texts: Iterable[str], tier: str) -> PreTrainedTokenizerBase:
    """The tokenizer of that name: `wordpiece-2048` is trained on `texts`, others come from the mirror or the Hub.

    Raises:
        MissingSourceError: it is in neither.
        ValueError: a vocabulary to be trained is too small for the special tokens.
    """
    if name.startswith(TRAINED_PREFIX):
        return train_wordpiece(texts, int(name.removeprefix(TRAINED_PREFIX)))
    return load_tokenizer(name, tier)


def tokenizer_key(name: str) -> str:
    """A cheap text that changes whenever the tokenizer would; a trained one follows from its texts."""
    return name if name.startswith(TRAINED_PREFIX) else f"{name};{files_key(mirror_folder('tokenizers', name))}"


def train_wordpiece(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """A lower-casing WordPiece vocabulary with BERT's rules and special tokens; `[PAD]` is entry 0.

    Args:
        texts: of the training side alone.
        vocabulary: entries at most; small texts give fewer.

    Raises:
        ValueError: the vocabulary cannot hold the special tokens and one character.
    """
    if vocabulary <= len(SPECIAL):
        raise ValueError(f"vocabulary is {vocabulary}; it must be more than {len(SPECIAL)}: {' '.join(SPECIAL)}")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), limit_alphabet=vocabulary // 4, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = {token: tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=list(ends.items())
    )
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **named
    )


def encode(tokenizer: Any, texts: Sequence[Sequence[str]], **options: Any) -> Any:
    """Inputs of fixed length for texts or pairs of texts, as a transformers BatchEncoding.

    Args:
        tokenizer: of `pair_tokenizer`.
        texts: one or two strings each, equally many.
        **options: of the tokenizer: `max_length`, `truncation`, and what windows need.
    """
    sides = [list(side) for side in zip(*texts, strict=True)]
    return tokenizer(
        *sides, padding="max_length", return_token_type_ids=True, return_attention_mask=True, verbose=False, **options
    )
