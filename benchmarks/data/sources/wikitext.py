"""WikiText-2 and WikiText-103 (Merity et al., arXiv 1609.07843): what GPT-2 is trained on in the paper.

WikiText-2 `wikitext-2-v1` carries `<unk>` for rare words, so its perplexities are not those of the raw text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from benchmarks.data.source import Corpus, Source, cap, dataset_folder, files_key, missing_dataset, read_column

HUB_ID = "Salesforce/wikitext"
_TITLE = re.compile(r"^ = [^=].* = \n?$")


def load(configuration: str, split: str, tier: str, train_bytes: int | None) -> Corpus:
    """The corpus by article, from the mirror or from the Hub.

    Raises:
        MissingSourceError: it is in neither.
    """
    lines = read_column("wikitext", HUB_ID, configuration, ("train", split), tier)
    return Corpus(cap(articles(lines["train"]), train_bytes), tuple(articles(lines[split])))


def articles(lines: Iterable[str]) -> Iterator[str]:
    """Whole articles from the data set's lines: one begins at a heading of the first level after an empty line."""
    article: list[str] = []
    blank = True
    for line in lines:
        if blank and _TITLE.match(line) and any(part.strip() for part in article):
            yield "".join(article)
            article = []
        article.append(line)
        blank = not line.strip()
    if any(part.strip() for part in article):
        yield "".join(article)


def key(configuration: str) -> str:
    """Configuration and files of the mirror."""
    return f"{configuration};{files_key(dataset_folder(HUB_ID, configuration))}"


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the corpus cannot be loaded, or None."""
    return missing_dataset("wikitext", HUB_ID, configuration, tier)


SOURCE = Source("wikitext", load, key, missing)
