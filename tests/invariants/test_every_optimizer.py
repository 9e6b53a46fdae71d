"""Every optimizer of torch, transformers, timm and pytorch-optimizer: exact, warned of, or refused; none fails later.

The verdict falls at construction. What is accepted trains on after a cut; what is called exact then equals training of
the masked dense model, on a real model and not on the small matrices of the trial.
"""

import copy
import warnings

import pytest
import torch

import ecospa
import ecospa.sparsity
from tests.model_zoo import build, inputs, logits, removed_masks

CONFIG = ecospa.EcoSpaConfig(
    pace="curve", interval=3, end_step=3, target_size=0.7, target_scope="blocks", width_multiple=2
)
STEPS = 6
NEEDED = {"bsam": {"num_data": 64}, "ranger21": {"num_iterations": 64}}
"""Arguments that have no default."""


def matrices_and_rest(model):
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".h." in name]
    rest = [p for p in model.parameters() if all(p is not one for one in inner)]
    return inner, rest


def torch_optimizers():
    for name in dir(torch.optim):
        kind = getattr(torch.optim, name)
        if name == "Muon":
            yield name, muon_and_adamw
        elif isinstance(kind, type) and kind is not torch.optim.Optimizer:
            yield name, lambda model, kind=kind: kind(model.parameters(), lr=1e-2)


def muon_and_adamw(model):
    inner, rest = matrices_and_rest(model)
    return [torch.optim.Muon(inner, lr=1e-2), torch.optim.AdamW(rest, lr=1e-2)]


def transformers_optimizers():
    from transformers.training_args import OptimizerNames

    for name in OptimizerNames:
        yield name.value, lambda model, name=name: of_trainer(model, name)


def of_trainer(model, name):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(output_dir="unused", optim=name, optim_target_modules="all-linear", use_cpu=True)
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    if "params" in options or "model" in options or "optimizer_dict" in options:
        return kind(**options)
    return kind(model.parameters(), **options)


def timm_optimizers():
    import timm.optim

    for name in (*timm.optim.list_optimizers(), "lookahead_adamw", "lookahead_sgd"):
        yield name, lambda model, name=name: timm.optim.create_optimizer_v2(model, opt=name, lr=1e-3, weight_decay=0.01)


def pytorch_optimizers():
    import pytorch_optimizer

    for name in pytorch_optimizer.get_supported_optimizers():
        yield name, lambda model, name=name: of_pytorch_optimizer(model, pytorch_optimizer.load_optimizer(name), name)


def of_pytorch_optimizer(model, kind, name):
    inner, rest = matrices_and_rest(model)
    groups = [{"params": inner, "use_muon": True}, {"params": rest, "use_muon": False}]
    failed = []
    for given in (model.parameters(), groups, model):
        try:
            return kind(given, **NEEDED.get(name, {}))
        except Exception as error:
            failed.append(str(error))
    raise RuntimeError("; ".join(failed))


SOURCES = {
    "torch": torch_optimizers,
    "transformers": transformers_optimizers,
    "timm": timm_optimizers,
    "pytorch-optimizer": pytorch_optimizers,
}
CASES = [(f"{source}-{name}", make) for source, found in SOURCES.items() for name, make in found()]
SAMPLE = {
    *(name for name, _ in CASES if name.startswith("torch-")),
    *("transformers-adafactor", "transformers-lion_32bit", "timm-lookahead_adamw", "timm-adafactorbv", "timm-adamp"),
    *("pytorch-optimizer-soap", "pytorch-optimizer-lamb", "pytorch-optimizer-conda", "pytorch-optimizer-prodigy"),
}
"""Optimizers that the ordinary run tries: every outcome, and every layout of state."""
UNAVAILABLE = (ImportError, AssertionError, ValueError, RuntimeError)
"""Errors of an optimizer that needs another package, CUDA or several processes."""


def is_needed(error):
    said = str(error).lower()
    words = (
        "install",
        "requires",
        "required",
        "cuda",
        "process group",
        "not available",
        "you need",
        "must be",
        "failed to import",
    )
    return isinstance(error, ImportError) or any(word in said for word in words)


def train(model, make, mask_after=None, zero_state=False):
    """Train for STEPS; through CoupledSparsity, or whole and masked from the step of the cut on.

    Returns:
        Model, the plan that was cut (None where it is given), and the warnings.
    """
    torch.manual_seed(0)
    optimizer = make(model)
    all_of = optimizer if isinstance(optimizer, list) else [optimizer]
    plans, said = [], []
    if mask_after is None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            sparsity = ecospa.CoupledSparsity(model, optimizer, CONFIG)
    else:
        masks = dict(zip(model.parameters(), removed_masks(model, mask_after).values(), strict=True))
    for one in all_of:
        getattr(one, "train", lambda: None)()
    batch = inputs("gpt2", seed=3)
    apply_plan = ecospa.sparsity.apply_plan
    for step in range(STEPS):
        loss = torch.nn.functional.cross_entropy(
            logits(model, batch)[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten()
        )
        loss.backward()
        masked = mask_after is not None and step >= CONFIG.end_step
        if masked:
            masked_state(all_of, masks, zero_state)
            for parameter, mask in masks.items():
                parameter.grad.mul_(mask)
        if mask_after is None:
            sparsity.after_backward()
        for one in all_of:
            one.step()
        if mask_after is None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    ecospa.sparsity,
                    "apply_plan",
                    lambda m, plan, *a, **more: (plans.append(plan), apply_plan(m, plan, *a, **more)),
                )
                sparsity.after_step()
        elif step >= CONFIG.end_step - 1:
            masked_state(all_of, masks, zero_state)
            with torch.no_grad():
                for parameter, mask in masks.items():
                    parameter.copy_(torch.where(mask.bool(), parameter, 0.0))
        for one in all_of:
            one.zero_grad()
    assert mask_after is not None or len(plans) == 1
    return model, plans[0] if plans else None, [one for one in said if one.category is ecospa.InexactOptimizerWarning]


def masked_state(optimizers, masks, zero_state):
    for one in optimizers if zero_state else ():
        for parameter, mask in masks.items():
            for value in one.state.get(parameter, {}).values():
                if isinstance(value, torch.Tensor) and value.shape == mask.shape:
                    value.copy_(torch.where(mask.bool(), value, torch.zeros_like(value)))


BASE = {}
FLOAT32 = {"pytorch-optimizer-fadam"}
"""Those that do not step float64."""


def base(name=""):
    dtype = torch.float32 if name in FLOAT32 else torch.float64
    if dtype not in BASE:
        BASE[dtype] = build("gpt2").to(dtype)
    return copy.deepcopy(BASE[dtype])


def outcome(name, make):
    """Refused (why), warned (how much), exact, and the largest difference of the exact from masked training."""
    try:
        model, plan, said = train(base(name), make)
    except ecospa.OptimizerStateError as refusal:
        return "refused", str(refusal)
    if said:
        return "warned", str(said[0].message)
    with torch.no_grad():
        small = logits(model, inputs("gpt2", seed=9))
        differences = []
        for zero_state in (False, True):
            with torch.enable_grad():
                whole, _, _ = train(base(name), make, plan, zero_state)
            differences.append(float((logits(whole, inputs("gpt2", seed=9)) - small).abs().max()))
            if differences[-1] < 1e-8:
                break
    return "exact", min(differences)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "make"),
    [pytest.param(*case, id=case[0], marks=() if case[0] in SAMPLE else pytest.mark.slow) for case in CASES],
)
def test_every_optimizer_is_exact_warned_of_or_refused(name, make, monkeypatch, record_property):
    monkeypatch.setattr(ecospa.optimizer_state, "_TOLD", set())
    try:
        make(base(name))
    except UNAVAILABLE as error:
        assert is_needed(error), error
        pytest.skip(f"{name}: {str(error).splitlines()[0][:150]}")
    verdict, detail = outcome(name, make)
    record_property("verdict", verdict)
    assert verdict != "exact" or detail < (1e-3 if name in FLOAT32 else 1e-7)
    assert verdict != "refused" or "cannot train a model that is cut" in detail


def test_the_four_libraries_are_found():
    assert {name for name, _ in CASES} >= SAMPLE
    found = {source: sum(name.startswith(source) for name, _ in CASES) for source in SOURCES}
    assert found["torch"] >= 15 and found["transformers"] >= 30 and found["timm"] >= 80
    assert found["pytorch-optimizer"] >= 100
