"""Whatever is thrown into a cut, from inside or outside: the model is as before or as after it."""

from __future__ import annotations

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
from ecospa import apply_plan, journal
from ecospa.surgery import add_biases, keep_heads
from tests.ecospa.cut_models import loss_of, step, training
from tests.ecospa.model_state import differences, state_of
from tests.model_zoo import build, random_plan

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


@pytest.fixture(autouse=True)
def heard_interrupts():
    """A process that a shell has put into the background ignores Ctrl-C from its start on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
