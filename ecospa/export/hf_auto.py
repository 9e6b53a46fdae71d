"""hf-auto: the cut shapes, with one self-contained modelling file that transformers runs under trust_remote_code."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ecospa.accounting import parameters
from ecospa.agreement import as_saved, check_agreement
from ecospa.attention import CoupledAttention
from ecospa.export import Format
from ecospa.families import known_family, transformer_blocks, unsupported
from ecospa.manifest import CONFIG, read_json
from ecospa.padding import built, plain_config
from ecospa.source_bundle import Definition, bundle
from ecospa.timm_models import without_weights

_RECORD = "ecospa_export"
"""Entry of the configuration that the modelling file reads."""


def _write(cut: Any, side: Path, options: Mapping[str, str]) -> Any:
    family = _family(cut)
    with as_saved(cut):
        check_agreement(cut)
        record = _record(cut)
        # names as the class has them: transformers renames weights of its own classes alone
        cut.save_pretrained(side, save_original_format=False)
    kind = type(cut).__name__
    config = {name: value for name, value in read_json(side / CONFIG).items() if name != "ecospa"}
    config |= {"architectures": [f"EcoSpa{kind}"], _RECORD: record}
    config["auto_map"] = {auto: f"{_module(cut)}.EcoSpa{kind}" for auto in _auto_classes(cut)}
    (side / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    path = side / f"{_module(cut)}.py"
    path.write_text(_modelling_file(cut, family.attention))
    return _loaded(path, f"EcoSpa{kind}").from_pretrained(side, local_files_only=True).eval()


def _family(cut: Any) -> Any:
    if not hasattr(cut, "save_pretrained"):
        raise unsupported("", f"{type(cut).__qualname__} is no transformers model", "save it with save_pretrained")
    found = {(family := known_family(block)).name: family for block in transformer_blocks(cut).values()}
    if len(found) != 1:
        raise unsupported("", f"its blocks are of the families {', '.join(found)}", "export it as hf")
    return next(iter(found.values()))


def _record(cut: Any) -> dict[str, Any]:
    """Shapes of parameters that the class builds otherwise, or not at all, and the geometry of every cut attention."""
    with without_weights():
        dense = built(type(cut), plain_config(cut), torch.float32)
    known = {name: value.shape for name, value in dense.named_parameters()}
    return {
        "shapes": {n: list(value.shape) for n, value in cut.named_parameters() if value.shape != known.get(n)},
        "attention": {
            name: asdict(module.geometry)
            for name, module in cut.named_modules()
            if isinstance(module, CoupledAttention)
        },
    }


def _module(cut: Any) -> str:
    return f"modeling_ecospa_{cut.config.model_type.replace('-', '_')}"


def _auto_classes(cut: Any) -> list[str]:
    """Auto classes of transformers that give this class for its configuration."""
    from transformers.models.auto import modeling_auto

    found = []
    for name, auto in sorted(vars(modeling_auto).items()):
        names = getattr(getattr(auto, "_model_mapping", None), "_model_mapping", {})
        if name.startswith("AutoModel") and names.get(cut.config.model_type) == type(cut).__name__:
            found.append(name)
    return found


def _modelling_file(cut: Any, attention: type[CoupledAttention]) -> str:
    kind = type(cut).__name__
    about = (
        f"{kind} whose layers have widths of their own, recorded in config.{_RECORD}.\n\n"
        "Written by ecospa (coupled sparsity, arXiv 2511.11641), which is not needed to run it.\n"
    )
    roots = [
        Definition("ecospa.narrowed", "narrow_shapes"),
        Definition(attention.__module__, attention.__name__),
    ]
    return bundle(roots, about) + _CLASS.format(
        kind=kind, home=type(cut).__module__, attention=attention.__name__, record=_RECORD
    )


_CLASS = '''

from {home} import {kind}


class EcoSpa{kind}({kind}):
    """{kind} at the widths that its configuration records."""

    def __init__(self, config, *arguments, **options):
        super().__init__(config, *arguments, **options)
        narrow_shapes(self, config.{record}, {attention})
'''


def _loaded(path: Path, kind: str) -> Any:
    """The class of a modelling file, from its path alone."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # a Python file that was just written
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return getattr(module, kind)


def _loading(cut: Any) -> str:
    auto = next(iter(_auto_classes(cut)), None)
    if auto is None:
        return f"from {_module(cut)} import EcoSpa{type(cut).__name__}  # with FOLDER on the path"
    return f"model = transformers.{auto}.from_pretrained(FOLDER, trust_remote_code=True)"


FORMAT = Format(
    name="hf-auto",
    about="the cut shapes, with a modelling file that transformers runs under trust_remote_code",
    write=_write,
    stored=lambda cut, options: parameters(cut),
    loading=_loading,
)
