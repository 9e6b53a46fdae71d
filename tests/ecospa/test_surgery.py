"""A cut is all or nothing: exceptions thrown at every part of it leave the model before it, or the whole new one."""

from __future__ import annotations

import copy
import functools
import gc
import random
import signal
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch import nn

import ecospa
from ecospa import PlanError, SparsityPlan, UnsupportedModelError, apply_plan, journal
from ecospa.exactness import require_exact
from ecospa.surgery import add_biases, keep_heads
from tests.ecospa.model_state import differences, state_of
from tests.model_zoo import build, inputs, logits, random_plan

COUNT, LARGE = 12, 208
KINDS = ("gpt2", "llama-gqa", "bert", "timm-vit")
SOURCES = str(Path(ecospa.__file__).parent)


class Thrown(BaseException):
    """No Exception: nothing may swallow it."""


KINDS_OF_ERRORS = (RuntimeError, KeyboardInterrupt, MemoryError, Thrown)


class Injector:
    """Counts lines, calls and returns in the project's modules and the calls into torch that they make; raises at one.

    Args:
        at: the event at which it raises; None only counts.
        error: what it raises.
    """

    def __init__(self, at=None, error=RuntimeError):
        self.at, self.error, self.count, self.commit = at, error, 0, []

    def __enter__(self):
        sys.setprofile(self.profile)
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_):
        sys.settrace(None)
        sys.setprofile(None)

    def seen(self, frame):
        self.count += 1
        if frame.f_code.co_filename.endswith("journal.py"):
            self.commit.append(self.count)
        if self.count == self.at:
            self.__exit__()
            raise self.error("thrown by a test")

    def trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        self.seen(frame)
        return self.trace

    def profile(self, frame, event, _):
        if event.startswith("c_") and frame.f_code.co_filename.startswith(SOURCES):
            self.seen(frame)


def loss_of(model, kind, seed):
    return logits(model, inputs(kind, seed=seed)).square().mean()


@functools.cache
def original(kind):
    """A model in the middle of training: optimizer state, and a moving average."""
    model = build(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for seed in range(2):
        optimizer.zero_grad()
        loss_of(model, kind, seed).backward()
        optimizer.step()
    return model, optimizer, torch.optim.swa_utils.AveragedModel(model)


def training(kind):
    """A copy of it, with gradients and a graph that are alive."""
    model, optimizer, average = copy.deepcopy(original(kind))
    optimizer.zero_grad()
    loss_of(model, kind, 2).backward()
    for part in (model, average.module):  # the zoo's norms are its own: tried once, before anything is thrown
        require_exact(part, apply_plan)
    return model, optimizer, average, loss_of(model, kind, 3)


def step(kind, model, optimizer, average):
    optimizer.step()
    optimizer.zero_grad()
    loss_of(model, kind, 4).backward()
    optimizer.step()
    average.update_parameters(model)
    return state_of(model, optimizer, (average,))


def heads_of(model):
    pairs = [pair for pair in ecospa.coupled_pairs(model) if pair.kind == "qk"]
    return {pair.module: torch.arange(pair.groups - 1) for pair in pairs}


def cut(what, model, optimizer, average):
    """The cut, without what the test itself prepares for it."""
    if what == "plan":
        plan = random_plan(model, 5)
        return lambda: apply_plan(model, plan, optimizer, (average,))
    if what == "heads":
        heads = heads_of(model)
        return lambda: keep_heads(model, heads, optimizer)
    pairs = [pair for pair in ecospa.coupled_pairs(model) if pair.kind == "ffn"]
    outputs = [pair.right[0].parameter.removesuffix(".weight") for pair in pairs]
    width = {name: model.get_submodule(name) for name in outputs}
    sizes = {name: one.weight.shape[0 if isinstance(one, nn.Linear) else 1] for name, one in width.items()}
    values = {name: torch.ones(size, dtype=torch.float64) for name, size in sizes.items()}
    return lambda: add_biases(model, values)


@functools.cache
def known(kind, what):
    """Number of events of a cut, those among them in which things are put in place, and the states around it."""
    model, optimizer, average, _ = training(kind)
    before = state_of(model, optimizer, (average,))
    work = cut(what, model, optimizer, average)
    work()  # imports and caches once
    model, optimizer, average, _ = training(kind)
    work = cut(what, model, optimizer, average)
    with Injector() as injector:
        work()
    after = state_of(model, optimizer, (average,))
    return injector.count, injector.commit, before, after


@functools.cache
def stepped(kind):
    return step(kind, *training(kind)[:3])


def inject(kind, what, number):
    """Throw one exception into a cut; True if the model is the one before."""
    count, commit, before, after = known(kind, what)
    rng = random.Random(number)
    at = rng.randint(1, count) if number % 2 else rng.choice(commit)
    error = KINDS_OF_ERRORS[number // 2 % len(KINDS_OF_ERRORS)]
    model, optimizer, average, graph = training(kind)
    ids = [id(parameter) for parameter in model.parameters()]
    work = cut(what, model, optimizer, average)
    with pytest.raises(error), Injector(at, error):
        work()
    gc.collect()  # an exception at the very end of a with block skips its exit: the handler gives way by itself then
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [id(parameter) for parameter in model.parameters()][: len(ids)] == ids
    state = state_of(model, optimizer, (average,))
    if differences(after, state) == []:
        return False
    assert differences(before, state) == [], f"{kind} {what} at {at} of {count}"
    untouched = training(kind)
    graph.backward()
    untouched[3].backward()
    assert differences(state_of(untouched[0]), state_of(model)) == []
    optimizer.zero_grad()
    loss_of(model, kind, 2).backward()
    assert differences(stepped(kind), step(kind, model, optimizer, average)) == []
    return True


def inject_all(numbers):
    whole = 0
    for number in numbers:
        what = ("plan", "plan", "heads", "biases")[number // 8 % 4]
        whole += not inject(KINDS[number % len(KINDS)], what, number)
    return whole


@pytest.fixture
def unchecked_shapes():
    """Checking shapes is no part of the project, and following it line by line takes most of the time."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_is_thrown_into_a_cut_leaves_the_model_before_or_after_it():
    assert inject_all(range(COUNT)) < COUNT / 2


@pytest.mark.fuzz
@pytest.mark.usefixtures("unchecked_shapes")
def test_many_exceptions_leave_the_model_before_or_after_it():
    whole = inject_all(range(COUNT, COUNT + LARGE))
    print(f"{LARGE} exceptions: {LARGE - whole} times the model before, {whole} times the whole new one")


def test_the_injector_would_find_a_cut_that_is_not_taken_back(monkeypatch):
    for change in (journal.NewShape, journal.NewEntry, journal.NewClass):
        monkeypatch.setattr(change, "take_back", lambda self: None)
    monkeypatch.setattr(journal.NewEntry, "make", fails_at_the_third(journal.NewEntry.make))
    model, optimizer, average, _ = training("gpt2")
    before = state_of(model, optimizer, (average,))
    with pytest.raises(OSError):
        cut("plan", model, optimizer, average)()
    assert differences(before, state_of(model, optimizer, (average,)))


def fails_at_the_third(make):
    calls = []

    def failing(self):
        calls.append(self)
        if len(calls) == 3:
            raise OSError("the third assignment fails")
        make(self)

    return failing


@pytest.mark.parametrize("change", ["NewShape", "NewEntry", "NewClass"])
def test_a_failing_assignment_is_taken_back(monkeypatch, change):
    kind = getattr(journal, change)
    model, optimizer, average, _ = training("llama-gqa")
    before = state_of(model, optimizer, (average,))
    monkeypatch.setattr(kind, "make", fails_at_the_third(kind.make))
    with pytest.raises(OSError):
        cut("plan", model, optimizer, average)()
    assert differences(before, state_of(model, optimizer, (average,))) == []


class Interrupting:
    """A change in the middle of which the user presses Ctrl-C."""

    made = False

    def make(self):
        signal.raise_signal(signal.SIGINT)
        self.made = True

    def take_back(self):
        self.made = False


def test_an_interrupt_waits_until_everything_is_in_place():
    changes = [Interrupting(), Interrupting()]
    with pytest.raises(KeyboardInterrupt):
        journal.commit(changes)
    assert all(change.made for change in changes)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_own_is_called_after_the_cut():
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(all(c.made for c in changes)))
    try:

        class Terminated(Interrupting):
            def make(self):
                signal.raise_signal(signal.SIGTERM)
                self.made = True

        changes = [Terminated(), Terminated()]
        journal.commit(changes)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [True, True]


def test_other_threads_cut_too():
    from concurrent.futures import ThreadPoolExecutor

    model, wanted = build("gpt2"), build("gpt2")
    plan = random_plan(model, 5)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(apply_plan, model, plan).result()
    apply_plan(wanted, plan)
    assert differences(state_of(wanted), state_of(model)) == []


class Locked:
    """A configuration that nobody may change, as some users lock theirs."""

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} is locked")


def test_a_locked_configuration_is_no_obstacle():
    model = build("gpt2")
    model.config.__class__ = type("LockedConfig", (Locked, type(model.config)), {})
    apply_plan(model, random_plan(model, 5))
    assert model.config.ecospa["widths"] == {pair.name: pair.width for pair in ecospa.coupled_pairs(model)}


def short_after(monkeypatch, calls, error):
    """Let memory run out when the given number of tensors has been made."""
    from ecospa import surgery

    made, sliced = [], surgery.sliced

    def failing(*arguments):
        made.append(None)
        if len(made) > calls:
            raise error
        return sliced(*arguments)

    monkeypatch.setattr(surgery, "sliced", failing)


SHORTAGES = (
    MemoryError("no memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
)


@pytest.mark.parametrize("error", SHORTAGES)
def test_where_memory_is_short_nothing_is_changed_and_the_way_out_is_named(monkeypatch, error):
    model, optimizer, average, _ = training("gpt2")
    before, plan = state_of(model, optimizer, (average,)), random_plan(model, 5)
    short_after(monkeypatch, 9, error)
    with pytest.raises(type(error), match=r"nothing has been changed; .*by_block=True") as caught:
        apply_plan(model, plan, optimizer, (average,))
    assert str(error) in str(caught.value)
    assert differences(before, state_of(model, optimizer, (average,))) == []


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_by_block_comes_to_the_same(kind):
    whole, parts = training(kind), training(kind)
    plan = random_plan(whole[0], 5)
    apply_plan(whole[0], plan, whole[1], (whole[2],))
    apply_plan(parts[0], plan, parts[1], (parts[2],), by_block=True)
    assert differences(state_of(whole[0], whole[1], (whole[2],)), state_of(parts[0], parts[1], (parts[2],))) == []


def test_by_block_stops_between_blocks_and_says_what_is_left(monkeypatch):
    model, optimizer, average, _ = training("gpt2")
    plan = random_plan(model, 5)
    tensors = sum(2 * len({axis.parameter for axis in pair.axes}) for pair in ecospa.coupled_pairs(model))
    with monkeypatch.context() as patch:
        short_after(patch, tensors, SHORTAGES[1])  # model and follower of the first block are fewer than these
        with pytest.raises(torch.OutOfMemoryError, match="nothing of this block") as caught:
            apply_plan(model, plan, optimizer, (average,), by_block=True)
    assert "already cut, each as a whole: transformer.h.0; plan.remaining(model)" in caught.value.__notes__[0]
    widths = {pair.name: pair.width for pair in ecospa.coupled_pairs(model)}
    assert {name for name in plan.kept if widths[name] != plan.widths[name]} == {n for n in plan.kept if ".h.0." in n}
    assert model.config.ecospa["widths"] == widths
    loss_of(model, "gpt2", 7).backward()
    optimizer.step()
    apply_plan(model, plan.remaining(model), optimizer, (average,))
    assert {pair.name: pair.width for pair in ecospa.coupled_pairs(model)} == plan.widths_after()
    average.update_parameters(model)


def test_a_graph_from_before_the_cut_says_so():
    model = build("gpt2")
    loss = loss_of(model, "gpt2", 1)
    apply_plan(model, random_plan(model, 5))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def inference_tensors(model):
    with torch.inference_mode():
        model.transformer.h[0].mlp.c_fc.weight = nn.Parameter(torch.randn(32, 128, dtype=torch.float64))


def same_memory(model):
    model.transformer.h[1].mlp.c_fc.weight.data = model.transformer.h[0].mlp.c_fc.weight.data


def views_that_overlap(model):
    values = torch.randn(33 * 128, dtype=torch.float64)
    for start, block in enumerate(model.transformer.h):
        block.mlp.c_fc.weight.data = values[64 * start :][: 32 * 128].view(32, 128)


def sparse_gradient(model):
    weight = model.transformer.h[0].mlp.c_fc.weight
    weight.grad = torch.zeros_like(weight).to_sparse()


def subclass(model):
    model.transformer.h[0].mlp.c_fc.bias = nn.Parameter(
        torch.randn(128, dtype=torch.float64).as_subclass(type("Own", (torch.Tensor,), {}))
    )


def parametrised_bias(model):
    nn.utils.parametrize.register_parametrization(model.transformer.h[0].mlp.c_fc, "bias", nn.Identity())


def half_without_weights(model):
    model.transformer.h[1].to("meta")


def offloaded(model):
    from accelerate import cpu_offload

    cpu_offload(model, execution_device=torch.device("cpu"))


def offloaded_in_part(model):
    from accelerate import dispatch_model

    dispatch_model(model, {"transformer": "cpu", "lm_head": "cpu"}, main_device="cpu", force_hooks=True)
    half_without_weights(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (inference_tensors, r"h\.0\.mlp\.c_fc\.weight: it is an inference tensor"),
        (same_memory, "lies in the same memory as"),
        (views_that_overlap, "lies in the same memory as"),
        (sparse_gradient, r"h\.0\.mlp\.c_fc\.weight: its gradient is torch\.sparse_coo"),
        (subclass, r"c_fc\.bias: it is a .*Own"),
        (parametrised_bias, r"c_fc: it is a .*ParametrizedConv1D"),
        (half_without_weights, r"h\.1\..*: its values are not here"),
        (offloaded, "weight: its values are not here"),
        (offloaded_in_part, r"h\.1\..*: its values are not here"),
    ],
)
def test_weights_that_cannot_be_cut_exactly_are_refused_by_name(change, message):
    model = build("gpt2")
    plan = random_plan(model, 5)
    change(model)
    shapes = [parameter.shape for parameter in model.parameters()]
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        apply_plan(model, plan)
    assert "Way out" in str(caught.value)
    assert [parameter.shape for parameter in model.parameters()] == shapes


def test_planning_for_offloaded_weights_is_refused_by_name():
    model = build("gpt2")
    offloaded(model)
    with pytest.raises(UnsupportedModelError, match=r"weight: its values are not here.*Way out"):
        ecospa.plan_shrink(model, 0.9, target_scope="blocks", width_multiple=1)
    with pytest.raises(UnsupportedModelError, match=r"weight: its values are not here.*Way out"):
        SparsityPlan.build(model, {})


def test_replicas_are_refused_by_name():
    model = build("gpt2")
    plan = random_plan(model, 5)
    for use in (
        lambda wrapped: apply_plan(wrapped, plan),
        lambda wrapped: SparsityPlan.build(wrapped, {}),
        lambda wrapped: ecospa.plan_shrink(wrapped, 0.9, target_scope="blocks", width_multiple=1),
        lambda wrapped: keep_heads(wrapped, {}),
        lambda wrapped: add_biases(wrapped, {}),
    ):
        with pytest.raises(UnsupportedModelError, match=r"DataParallel: .*Way out"):
            use(nn.DataParallel(model))


def flat(model):
    vector = nn.utils.parameters_to_vector(model.parameters()).detach()
    nn.utils.vector_to_parameters(vector, model.parameters())


def transposed(model):
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.t().contiguous().t()


def frozen(model):
    model.requires_grad_(False)


def low_precision(model):
    model.transformer.h[0].mlp.to(torch.bfloat16)
    model.transformer.h[1].mlp.c_fc.weight.data = model.transformer.h[1].mlp.c_fc.weight.data.to(torch.float8_e4m3fn)


def gradient_of_another_type(model):
    weight = model.to(torch.bfloat16).transformer.h[0].mlp.c_fc.weight
    weight.grad_dtype = torch.float32
    weight.grad = torch.randn(weight.shape)


@pytest.mark.parametrize("change", [flat, transposed, frozen, low_precision, gradient_of_another_type])
def test_unusual_weights_are_cut_exactly(change):
    model, plain = build("gpt2"), build("gpt2")
    plan = random_plan(model, 5)
    change(model)
    dtypes = [parameter.dtype for parameter in model.parameters()]
    apply_plan(model, plan)
    apply_plan(plain, plan)
    assert [parameter.dtype for parameter in model.parameters()] == dtypes
    cut_ones = {axis.parameter for pair in ecospa.coupled_pairs(plain) if pair.name in plan.kept for axis in pair.axes}
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.double(), theirs.to(mine.dtype).double()), name
        assert mine.grad is None or mine.grad.shape == mine.shape
        if name in cut_ones:
            assert mine.untyped_storage().nbytes() == mine.numel() * mine.element_size(), name


def under_inference_mode(work):
    with torch.inference_mode():
        work()


def under_another_default_device(work):
    torch.set_default_device("meta")
    try:
        work()
    finally:
        torch.set_default_device(None)


def under_deterministic_algorithms(work):
    torch.use_deterministic_algorithms(True)
    try:
        work()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("around", [under_inference_mode, under_another_default_device, under_deterministic_algorithms])
def test_the_mode_around_a_cut_does_not_matter(around):
    mine, wanted = training("llama-gqa"), training("llama-gqa")
    text = random_plan(wanted[0], 5).to_json()

    def work():
        apply_plan(mine[0], SparsityPlan.from_json(text), mine[1], (mine[2],))

    around(work)
    apply_plan(wanted[0], SparsityPlan.from_json(text), wanted[1], (wanted[2],))
    assert differences(step("llama-gqa", *wanted[:3]), step("llama-gqa", *mine[:3])) == []


@pytest.mark.parametrize("heads", [None, "all", [[0]], [0.5], [True], [10**30], object()])
def test_heads_that_are_no_numbers_are_refused(heads):
    unchecked = getattr(keep_heads, "__wrapped__", keep_heads)  # without the check of shapes, which stops some before
    with pytest.raises(PlanError):
        unchecked(build("gpt2"), {"transformer.h.0.attn": heads})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transformer.h.9.mlp.c_proj", torch.zeros(32)),
        ("transformer.h.0", torch.zeros(32)),
        ("transformer.h.0.mlp.c_proj", torch.zeros(32, dtype=torch.int64)),
        ("transformer.h.0.mlp.c_proj", [0.0] * 32),
        ("transformer.h.0.mlp.c_proj", torch.zeros(1, 32)),
    ],
)
def test_senseless_biases_are_refused(name, value):
    unchecked = getattr(add_biases, "__wrapped__", add_biases)
    with pytest.raises(PlanError):
        unchecked(build("gpt2"), {name: value})
