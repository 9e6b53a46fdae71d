"""Models by the name that a command line gives: a folder that was cut, one that was not, or an id of a hub."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from ecospa.architecture import class_of
from ecospa.config import ConfigError
from ecospa.manifest import CONFIG, MANIFEST, read_json

_COMPANIONS = re.compile(
    r"(tokenizer.*|special_tokens_map|added_tokens|vocab|(pre|post)?processor_config|preprocessor_config)\.json|"
    r"(merges|vocab)\.txt|.*\.model|chat_template\.(jinja|json)"
)
"""Names of what makes inputs for a model."""


def existing(folder: str) -> Path:
    """A folder that is there.

    Args:
        folder: as it was typed.

    Raises:
        ConfigError: it is no folder.
    """
    if not Path(folder).is_dir():
        raise ConfigError(f"FOLDER is {folder!r}, which is no folder; give one that ecospa.save_pretrained wrote")
    return Path(folder)


def load_model(name: str) -> Any:
    """A model with its weights, cut or whole, in evaluation mode.

    Args:
        name: a folder that ecospa or transformers wrote, or an id of the Hugging Face Hub.

    Raises:
        ConfigError: there is no such model.
        CheckpointError: the folder is damaged.
    """
    folder = Path(name)
    if folder.is_dir() and _was_saved_here(folder):
        from ecospa.checkpoint import from_pretrained

        return from_pretrained(folder)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        return class_of(config).from_pretrained(name, config=config).eval()
    except OSError as error:
        raise ConfigError(
            f"MODEL is {name!r}: no model found ({str(error).splitlines()[0]}); give a folder with config.json and "
            "weights, or an id of the Hugging Face Hub (needs a network once)"
        ) from error


def _was_saved_here(folder: Path) -> bool:
    if (folder / MANIFEST).is_file():
        return True
    return (folder / CONFIG).is_file() and "ecospa" in read_json(folder / CONFIG)


def copy_companions(name: str, out: Path) -> list[str]:
    """Copy tokenizer and processor files next to a model that was made of another; none is replaced.

    Args:
        name: folder of the other model; an id of a hub has its tokenizer saved by transformers.
        out: folder of the new one.

    Returns:
        Names of the files that were copied.
    """
    source, copied = Path(name), []
    if not source.is_dir():
        from transformers import AutoTokenizer

        return sorted(Path(path).name for path in AutoTokenizer.from_pretrained(name).save_pretrained(out))
    for path in sorted(source.iterdir()):
        if path.is_file() and _COMPANIONS.fullmatch(path.name) and not (out / path.name).exists():
            shutil.copyfile(path, out / path.name)
            copied.append(path.name)
    return copied
