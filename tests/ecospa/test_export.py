"""Folders that open where ecospa cannot be imported, with the logits of the cut model."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ecospa
from ecospa.export import export_cost, export_model, formats
from ecospa.pairs import unit_positions
from ecospa.source_bundle import Definition, bundle
from ecospa.surgery import add_biases
from tests.architectures import RECENT, SPECIAL, known_classes, model_class
from tests.model_zoo import ZOO, inputs, logits, random_plan
from tests.tiny_models import tiny_model

KINDS = ("gpt2", "llama-gqa", "qwen3", "mistral", "bert", "vit")

READER = """
import json, sys
sys.modules["ecospa"] = None  # an import of it raises
import torch, transformers
job = json.loads(sys.stdin.read())
for folder, one in job.items():
    batch = {name: torch.tensor(value) for name, value in one["batch"].items()}
    scope = {"transformers": transformers, "torch": torch}
    exec(one["loading"], scope)
    model = scope["model"].eval()
    with torch.no_grad():
        result = {"logits": model(**batch).logits.tolist(), "kind": type(model).__name__}
        if one["generate"]:
            result["text"] = model.generate(**batch, max_new_tokens=6, do_sample=False).tolist()
    print(json.dumps({folder: result}), flush=True)
"""


def cut(kind: str) -> Any:
    torch.manual_seed(0)
    model = ZOO[kind].build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ecospa.apply_plan(model, random_plan(model, 3))
    return model


def batch_of(kind: str) -> dict[str, torch.Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in inputs(kind).items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """Every kind in every format, read by one process without ecospa."""
    root = tmp_path_factory.mktemp("exported")
    job, expected = {}, {}
    for kind in KINDS:
        model = cut(kind)
        for to in formats():
            folder = root / f"{kind}-{to}"
            written = export_model(model, folder, to)
            assert written.difference is not None and written.difference <= 1e-5
            assert written.stored == export_cost(model, to).stored
            batch = batch_of(kind)
            job[str(folder)] = {
                "loading": written.loading,
                "batch": {name: value.tolist() for name, value in batch.items()},
                "generate": ZOO[kind].causal,
            }
            with torch.no_grad():
                expected[str(folder)] = (kind, to, logits(model, batch))
            if ZOO[kind].causal:
                job[str(folder)]["text"] = model.generate(**batch, max_new_tokens=6, do_sample=False).tolist()
    environment = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(root / "modules"), "PATH": "", "HOME": str(root)}
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER], input=json.dumps(job), env=environment, cwd=root, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in done.stdout.splitlines():
        ((folder, result),) = json.loads(line).items()
        kind, to, values = expected[folder]
        found[kind, to] = {**result, "expected": values, "folder": Path(folder), "job": job[folder]}
    return found


@pytest.mark.parametrize("to", sorted(formats()))
@pytest.mark.parametrize("kind", KINDS)
def test_a_process_without_ecospa_gets_the_same_logits(exported: Any, kind: str, to: str) -> None:
    found = exported[kind, to]
    assert (torch.tensor(found["logits"]) - found["expected"]).abs().max() <= 1e-5
    assert found.get("text") == found["job"].get("text")
    wanted = type(ZOO[kind].build()).__name__
    assert found["kind"] == (wanted if to == "hf" else f"EcoSpa{wanted}")


def test_plain_transformers_loads_hf_and_nothing_is_left_of_ecospa(exported: Any) -> None:
    folder = exported["llama-gqa", "hf"]["folder"]
    config = json.loads((folder / "config.json").read_text())
    assert "ecospa" not in json.dumps(config) and sorted(path.suffix for path in folder.iterdir()) == [
        ".json", ".json", ".safetensors",
    ]  # fmt: skip


def test_hf_auto_holds_no_more_than_the_cut_model(exported: Any) -> None:
    from safetensors import safe_open

    folder = exported["llama-gqa", "hf-auto"]["folder"]
    with safe_open(folder / "model.safetensors", "pt") as stored:
        held = {name: stored.get_tensor(name) for name in stored.keys()}
    own = {name: value for name, value in cut("llama-gqa").state_dict().items() if name in held}
    assert held.keys() == own.keys() and all(torch.equal(held[name], own[name]) for name in held)
    text = next(folder.glob("modeling_ecospa_*.py")).read_text()
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert not any(str(name).startswith("ecospa") for name in imported)


def test_added_biases_are_loaded_where_the_class_has_none(tmp_path: Path) -> None:
    model = cut("llama-gqa")
    add_biases(model, {"model.layers.0.mlp.down_proj": torch.ones(32)})
    assert export_model(model, tmp_path, "hf-auto").difference == 0.0
    recorded = json.loads((tmp_path / "config.json").read_text())["ecospa_export"]["shapes"]
    assert recorded["model.layers.0.mlp.down_proj.bias"] == [32]


def test_costs_are_known_before_anything_is_written() -> None:
    model = cut("llama-gqa")
    own, costs = ecospa.accounting.parameters(model), {to: export_cost(model, to) for to in formats()}
    assert costs["hf-auto"].stored == own < costs["hf"].stored < export_cost(model, "hf", fit="original").stored
    assert costs["hf"].dense == ecospa.accounting.parameters(ZOO["llama-gqa"].build())
    assert "more than the cut model's" in str(costs["hf"])


def test_a_wrong_format_option_or_value_is_named(tmp_path: Path) -> None:
    model = cut("gpt2")
    for to, options, message in (
        ("gguf2", {}, "to is 'gguf2'; choose from hf, hf-auto"),
        ("hf-auto", {"fit": "nearest"}, "fit is 'nearest'; the format hf-auto has the options: none"),
        ("hf", {"fit": "tight"}, "fit is 'tight'; choose from nearest, original"),
    ):
        with pytest.raises(ecospa.ConfigError, match=message):
            export_model(model, tmp_path / "out", to, **options)
    with pytest.raises(ecospa.UnsupportedModelError, match="no transformers model"):
        export_model(cut("timm-vit"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_that_computes_something_else_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cut("gpt2")
    export_model(model, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(
        "ecospa.padding._rows", lambda cut, pair: torch.arange(pair.width).flip(0).repeat(pair.groups, 1)
    )
    monkeypatch.setattr("ecospa.padding._scatter", lambda place, value, moves: place.zero_())
    with pytest.raises(ecospa.CheckpointError, match="is as it was: the exported model's outputs differ by"):
        export_model(model, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_tokenizer_stays_and_the_older_export_goes(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    model = cut("gpt2")
    export_model(model, tmp_path, "hf-auto")
    assert list(tmp_path.glob("modeling_ecospa_*.py"))
    export_model(model, tmp_path, "hf")
    assert not list(tmp_path.glob("modeling_ecospa_*.py")) and (tmp_path / "tokenizer.json").exists()


def test_a_bundle_holds_what_it_needs_and_runs_alone() -> None:
    text = bundle([Definition("ecospa.attention", "rotate"), Definition("ecospa.pairs", "head_index")], "About.")
    scope: dict[str, Any] = {"__name__": "bundled"}
    exec(compile(text, "bundled", "exec"), scope)
    from ecospa.pairs import head_index

    assert torch.equal(scope["head_index"](2, 3, repeats=2), head_index(2, 3, repeats=2))
    assert "ecospa" not in text


def test_what_cannot_be_bundled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"ecospa\.attention defines no rotated; name the module that does"):
        bundle([Definition("ecospa.attention", "rotated")], "About.")
    with pytest.raises(ValueError, match="two definitions are called geometry"):
        bundle([Definition(f"ecospa.families.{name}", "geometry") for name in ("gpt2", "llama")], "About.")
    monkeypatch.setattr("ecospa.source_bundle._PACKAGE", "re")
    with pytest.raises(ValueError, match="argparse uses the module re as a whole"):
        bundle([Definition("argparse", "HelpFormatter")], "About.")


ORDINARY = ("Phi3ForCausalLM", "GPTNeoXForCausalLM", "MixtralForCausalLM", "T5ForConditionalGeneration")
"""Fused weights, weights that files call otherwise, experts, cross attention."""

TWO_FAMILIES = ("AltCLIPModel", "Gemma3ForConditionalGeneration")
UNKNOWN_INPUTS = ("ASTModel", "VivitModel")
"""Sounds and films, of which the probe has none."""


def even_plan(model: Any) -> ecospa.SparsityPlan:
    """Half of the attention, and feed-forward widths of 24 and 32 in turn: grouped products want multiples."""
    kept = {}
    for number, pair in enumerate(ecospa.coupled_pairs(model)):
        count = (24, 32)[number % 2] if pair.kind is ecospa.PairKind.FFN else max(1, pair.units // 2)
        generator = torch.Generator().manual_seed(number)
        rows = [torch.randperm(pair.units, generator=generator)[:count].sort().values for _ in range(pair.groups)]
        kept[pair.name] = unit_positions(pair, torch.stack(rows))
    return ecospa.SparsityPlan.build(model, kept)


@pytest.mark.parametrize(
    "name", [n if n in ORDINARY else pytest.param(n, marks=pytest.mark.slow) for n in sorted(known_classes())]
)
def test_every_architecture_is_exported(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tiny_model(model_class(name), torch.float32, **SPECIAL.get(name, {}))
    try:
        plan = even_plan(model)
    except ecospa.UnsupportedModelError as error:
        assert name in RECENT, error
        pytest.skip(f"refused by this release of transformers: {error}")
    ecospa.apply_plan(model, plan)
    for to in formats():
        if to == "hf-auto" and name in TWO_FAMILIES:
            with pytest.raises(ecospa.UnsupportedModelError, match="its blocks are of the families"):
                export_model(model, tmp_path / to, to)
            continue
        written = export_model(model, tmp_path / to, to)
        assert (name in UNKNOWN_INPUTS) if written.difference is None else written.difference <= 1e-5
