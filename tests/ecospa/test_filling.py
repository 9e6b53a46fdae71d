"""A model in hand filled from a checkpoint: every family, bitwise, and unchanged where anything does not fit."""

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import ecospa
from ecospa.filling import fill
from ecospa.manifest import renew_manifest, verify
from ecospa.saved_shape import checkpoint_shape
from tests.model_zoo import ZOO, random_plan


def built(kind, seed=0):
    torch.manual_seed(seed)
    return ZOO[kind].build()


def saved(folder, model, **options):
    """A cut model with random norms and biases, saved."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ecospa.apply_plan(model, random_plan(model, 1))
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder, **options)
    else:
        ecospa.save_pretrained(model, folder)
    return model


def filled(model, folder):
    fill(model, folder, verify(folder), checkpoint_shape(folder))
    return model


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", ZOO)
def test_every_family_is_filled_bitwise(kind, tmp_path):
    options = {} if kind.startswith("timm") else {"max_shard_size": "20KB"}
    model = saved(tmp_path, built(kind), **options)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1 or not options
    dense = built(kind, seed=5)
    before = torch.get_rng_state()
    assert same(filled(dense, tmp_path), model)
    assert torch.equal(before, torch.get_rng_state())  # the order of a run's data hangs on it
    assert not any(tensor.is_meta for tensor in (*dense.parameters(), *dense.buffers()))


class OwnViT(transformers.ViTForImageClassification):
    """A class of the user's own, of a family whose keys are converted."""


def test_changed_heads_and_own_classes_are_filled(tmp_path):
    def own(seed):
        torch.manual_seed(seed)
        model = OwnViT(ZOO["vit"].build().config)
        model.classifier = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.Linear(8, 5))
        return model

    model = saved(tmp_path, own(0))
    assert same(filled(own(5), tmp_path), model)


def test_compiled_models_are_seen_through(tmp_path):
    model = saved(tmp_path, built("vit"))
    dense = built("vit", seed=5)
    filled(torch.compile(dense, backend="eager"), tmp_path)
    assert same(dense, model)


def spoiled(stored, how):
    name = min(key for key in stored if stored[key].ndim == 2)
    if how == "missing":
        del stored[name]
    elif how == "unexpected":
        stored["stranger"] = torch.zeros(2)
    elif how == "shape":
        stored[name] = torch.zeros(3, 3)
    else:
        stored = {key: value.bfloat16() for key, value in stored.items()}
    return stored


@pytest.mark.parametrize("kind", ["vit", "gpt2", "timm-vit"])
@pytest.mark.parametrize("how", ["missing", "unexpected", "shape", "dtype"])
def test_whatever_does_not_fit_is_refused_and_nothing_changes(kind, how, tmp_path):
    saved(tmp_path, built(kind))
    path = tmp_path / "model.safetensors"
    stored = spoiled(load_file(path), how)
    save_file(stored, path, metadata={"format": "pt"})
    if (tmp_path / "ecospa.json").exists():
        renew_manifest(tmp_path)
    dense = built(kind, seed=5)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    with pytest.raises(ecospa.CheckpointError):
        filled(dense, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_a_narrower_model_is_refused(tmp_path):
    saved(tmp_path, built("gpt2"))
    narrow = built("gpt2", seed=5)
    kept = {pair.name: torch.zeros(pair.groups, 1, dtype=torch.int64) for pair in ecospa.coupled_pairs(narrow)}
    ecospa.apply_plan(narrow, ecospa.SparsityPlan.build(narrow, kept))
    with pytest.raises(ecospa.CheckpointError, match="does not fit this model"):
        filled(narrow, tmp_path)
