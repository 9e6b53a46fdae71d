"""The models of transformers that the families know, found by the folders of their blocks: a new file adds its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ecospa.families import Family, families

TASKS = ("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "MASKED_LM", "CAUSAL_LM", "IMAGE_CLASSIFICATION", "")
"""Tasks in the order in which a model's class is chosen; "" is the model without a head."""


NOT_TINY = {
    "AlignModel": "its other tower, EfficientNet, is large whatever its configuration says",
    "ChineseCLIPVisionModel": "no block of this tower is known",
    "ClapModel": "its other tower, Swin, has lists of sizes",
    "Data2VecAudioModel": "no block of this one is known",
    "Data2VecVisionForImageClassification": "no block of this one is known",
    "Siglip2ForImageClassification": "it reads flattened patches",
    "Siglip2Model": "it reads flattened patches",
    "Siglip2VisionModel": "it reads flattened patches",
}
"""Models in the folders of known blocks that no test runs, and why."""
INSTEAD = {"AlignModel": "AlignTextModel", "ClapModel": "ClapTextModel", "Siglip2Model": "Siglip2TextModel"}
"""Models that stand for others of the same folder."""
SPECIAL: dict[str, dict[str, Any]] = {
    "HeliumForCausalLM": {"head_dim": 8},
    "T5ForConditionalGeneration": {"decoder_start_token_id": 0},
}
"""Fields of configurations that the usual sizes do not suit."""
RECENT = {"Dinov2ForImageClassification", "Dinov2WithRegistersForImageClassification", "GPTJForCausalLM"}
"""Models whose layers have another code in the oldest releases, where they are refused."""
RANDOM = {"ViTMAEModel"}
"""Models that draw random numbers in evaluation mode, so that no two passes are the same."""


def class_names(task: str) -> Mapping[str, str]:
    """Model type -> name of its first class for a task."""
    from transformers.models.auto import modeling_auto

    task = f"FOR_{task}_" if task else ""
    names = getattr(modeling_auto, f"MODEL_{task}MAPPING_NAMES")
    return {kind: name if isinstance(name, str) else name[0] for kind, name in names.items()}


def folder(kind: str) -> str:
    """Folder of a model type in transformers."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    return str(model_type_to_module_name(kind))


def known_folders(family: Family) -> set[str]:
    """Folders of transformers in which the blocks of a family lie; none for the family of another library."""
    return {block.split(".")[2] for block in family.blocks if block.startswith("transformers.models.")}


def known_classes() -> dict[str, str]:
    """Name of every model class whose blocks a family knows -> name of that family; one class per model type."""
    found: dict[str, str] = {}
    tasks = [class_names(task) for task in TASKS]
    for family in families():
        inside = known_folders(family)
        for kind in sorted({kind for names in tasks for kind in names if folder(kind) in inside}):
            name = next(names[kind] for names in tasks if kind in names)
            name = INSTEAD.get(name, name)
            if name not in NOT_TINY:
                found.setdefault(name, family.name)
    return found


def model_class(name: str) -> Any:
    """The class of that name."""
    import transformers

    return getattr(transformers, name)


def representatives(classes: Mapping[str, str]) -> Iterator[str]:
    """One class of every family."""
    seen: set[str] = set()
    for name, family in classes.items():
        if family not in seen:
            seen.add(family)
            yield name
