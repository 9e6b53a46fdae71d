"""WordPiece tokenizers for encoders: BERT's own, or a small one of its kind trained on the training side.

A pair of texts becomes `[CLS] first [SEP] second [SEP]` with token types 0 and 1, padded to a fixed length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.data.source import files_key, mirror_folder
from benchmarks.data.sources import minilm
from benchmarks.data.text.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAINED_PREFIX = "wordpiece-"
_BEGINS = "\u2581"  # marks the beginning of a word while pieces are learnt
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def pair_tokenizer(name: str, texts: Iterable[str], tier: str) -> PreTrainedTokenizerBase:
    """The tokenizer of that name: `wordpiece-2048` is trained on `texts`, others come from the mirror or the Hub.

    That of all-MiniLM-L6-v2 lies where its weights do.

    Raises:
        MissingSourceError: it is in neither.
        ValueError: a vocabulary to be trained is too small for the special tokens.
    """
    if name.startswith(TRAINED_PREFIX):
        return train_wordpiece(texts, int(name.removeprefix(TRAINED_PREFIX)))
    if name == minilm.HUB_ID:
        from transformers import AutoTokenizer

        own: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(minilm.folder())
        return own
    return load_tokenizer(name, tier)


def tokenizer_key(name: str) -> str:
    """A cheap text that changes whenever the tokenizer would; a trained one follows from its texts."""
    if name.startswith(TRAINED_PREFIX):
        return name
    if name == minilm.HUB_ID:
        return minilm.key(name)
    return f"{name};{files_key(mirror_folder('tokenizers', name))}"


def train_wordpiece(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """A lower-casing WordPiece vocabulary with BERT's rules and special tokens; `[PAD]` is entry 0.

    The pieces are those of byte-pair merges: the WordPiece trainer of `tokenizers` numbers pieces in the order of a
    hash table, so that two trainings on one text differ.

    Args:
        texts: of the training side alone.
        vocabulary: entries at most; small texts give fewer.

    Raises:
        ValueError: the vocabulary cannot hold the special tokens and one character.
    """
    if vocabulary <= len(SPECIAL):
        raise ValueError(f"vocabulary is {vocabulary}; it must be more than {len(SPECIAL)}: {' '.join(SPECIAL)}")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {piece: number for number, piece in enumerate((*SPECIAL, *_pieces(texts, vocabulary - len(SPECIAL))))}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, numbers[token]) for token in ("[CLS]", "[SEP]")],
    )
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **named
    )


def _pieces(texts: Iterable[str], most: int) -> list[str]:
    """Pieces of words, the commonest characters first, then merges by frequency; `##` inside of a word."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.BertNormalizer(lowercase=True)
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(_BEGINS, prepend_scheme="always", split=False)]
    )
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=most, show_progress=False))
    learned = sorted(learner.get_vocab().items(), key=lambda entry: entry[1])
    pieces = [piece.removeprefix(_BEGINS) if piece.startswith(_BEGINS) else f"##{piece}" for piece, _ in learned]
    characters = [piece for piece, _ in learned if len(piece) == 1 and piece != _BEGINS]  # any may begin a word
    return list(dict.fromkeys([*characters, *filter(None, pieces)]))[:most]


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
