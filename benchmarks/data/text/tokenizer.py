"""Tokenizers: a byte-level BPE trained on the training split, or the original one of GPT-2.

Small models cannot carry 50,257 embeddings, so the smoke and cpu tiers train their own vocabulary. Every text has a
token sequence, whatever its characters are, so no byte is lost from the count of bits per byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmarks.data.source import HUB, MissingSourceError, explain_missing, from_hub, mirror_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
TRAINED_PREFIX = "bpe-"
_HUB_TOKENIZERS = {
    "gpt2": "openai-community/gpt2",
    "t5-base": "google-t5/t5-base",
    "bert-base-uncased": "google-bert/bert-base-uncased",
}


def train_tokenizer(documents: Iterable[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE with exactly `vocabulary` entries where the text allows it; END_OF_TEXT is entry 0.

    Args:
        documents: the training split alone.
        vocabulary: entries, at least the 256 bytes and END_OF_TEXT.

    Raises:
        ValueError: the vocabulary cannot hold the bytes.
    """
    if vocabulary < 257:
        raise ValueError(f"vocabulary is {vocabulary}; it must be at least 257: 256 bytes and {END_OF_TEXT}")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT)


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """Number of the mark between documents: END_OF_TEXT, or what a tokenizer of others ends a sequence with."""
    if END_OF_TEXT in tokenizer.get_vocab():
        return int(cast(int, tokenizer.convert_tokens_to_ids(END_OF_TEXT)))
    return int(cast(int, tokenizer.eos_token_id))


def document_mark(tokenizer: PreTrainedTokenizerBase) -> int:
    """Number of the mark between documents that a trained model knows: BOS, or END_OF_TEXT where there is no BOS.

    A LLaMA has met BOS before every text, and EOS only where its authors put it. For the GPT-2 kind both are one.
    """
    begin = tokenizer.bos_token_id
    return end_of_text(tokenizer) if begin is None else int(begin)


def trained_size(name: str) -> int | None:
    """Vocabulary of a tokenizer to be trained here, `bpe-4096` -> 4096; None for a ready-made one."""
    return int(name.removeprefix(TRAINED_PREFIX)) if name.startswith(TRAINED_PREFIX) else None


def load_tokenizer(name: str, tier: str) -> PreTrainedTokenizerBase:
    """A ready-made tokenizer from the mirror or from the Hub.

    Raises:
        MissingSourceError: it is in neither.
    """
    from transformers import AutoTokenizer

    folder = mirror_folder("tokenizers", name)
    hub_id = _HUB_TOKENIZERS.get(name)
    if folder is None and (hub_id is None or not from_hub(tier)):
        raise MissingSourceError(explain_missing(f"tokenizer {name}", tier, f"tokenizers/{name}", hub_id or HUB))
    place: str | Path = folder if folder is not None else str(hub_id)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place)
    return tokenizer
