"""hf: plain transformers, which any release and any engine loads; zeros take the places of what was cut."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ecospa.accounting import parameters
from ecospa.export import Format
from ecospa.padding import Fit, padded, padded_shape


def _write(cut: Any, side: Path, options: Mapping[str, str]) -> Any:
    wide = padded(cut, fit=cast(Fit, options["fit"]))
    wide.save_pretrained(side)
    return type(wide).from_pretrained(side, local_files_only=True).eval()


def _stored(cut: Any, options: Mapping[str, str]) -> int:
    return parameters(padded_shape(cut, fit=cast(Fit, options["fit"])))


def _loading(cut: Any) -> str:
    return f"model = transformers.{type(cut).__name__}.from_pretrained(FOLDER)"


FORMAT = Format(
    name="hf",
    about="plain transformers, padded with zeros to a shape that its class has; every release and engine",
    write=_write,
    stored=_stored,
    loading=_loading,
    options={"fit": ("nearest", "original")},
)
