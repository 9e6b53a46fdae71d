"""Checkpoints of a plain Trainer with the callback, and of runs that are killed at any moment."""

import os
import random
import signal
import sys
import threading
import time
import warnings

import pytest
import torch
from transformers import Trainer

import ecospa
from ecospa.trainer_checkpoint import (
    SkippedCheckpointWarning,
    newest_whole,
)
from tests.ecospa.trainer_runs import CONFIG, model_of, same, trained, trainer_of, weights

KILLS, MANY_KILLS = 4, 36


# The plain Trainer with the callback


def plain(folder, model, kind="gpt2", resume=None):
    ours = trainer_of(folder, kind)
    callback = ecospa.EcoSpaCallback(CONFIG)
    trainer = Trainer(model, ours.args, train_dataset=ours.train_dataset, callbacks=[callback])
    trainer.train(resume_from_checkpoint=resume)
    return list(trainer.model.state_dict().values())


@pytest.mark.parametrize("kind", ["gpt2", "vit"])
def test_a_plain_trainer_seals_and_resumes_and_notices_what_it_did_not_load(kind, tmp_path):
    uninterrupted = [value.clone() for value in plain(tmp_path, model_of(kind), kind)]
    checkpoint = newest_whole(tmp_path).folder.with_name("checkpoint-4")
    assert same(plain(tmp_path / "b", ecospa.from_pretrained(checkpoint), kind, str(checkpoint)), uninterrupted)
    assert same(weights(trained(tmp_path / "c", kind, resume=str(checkpoint))), uninterrupted)
    if kind == "vit":  # stored under other names than those that the plain Trainer looks for
        with torch.no_grad():
            wrong = ecospa.from_pretrained(checkpoint)
            wrong.vit.layers[0].mlp.fc1.weight.add_(0.1)
        with pytest.raises(ecospa.CheckpointError, match="does not hold the weights of the checkpoint"):
            plain(tmp_path / "d", wrong, kind, str(checkpoint))


# Kills


def kill_at(folder, event, delay):
    """Arm this process: from the moment on that a checkpoint is in place, the event-th one in `folder` is its last."""
    seen = []

    def watch(name, arguments):
        if name.split(".")[0] not in ("open", "os", "shutil") or not any(str(folder) in str(one) for one in arguments):
            return
        if seen or (folder / "checkpoint-2").exists():
            seen.append(name)
            if len(seen) == event:
                if delay:
                    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
                else:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return seen


def in_a_child(folder, event, delay, **options):
    """Train in a forked process that dies at an event; its exit, and how many events it saw if it lived."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fork in a process with threads: they are idle
        child = os.fork()
    if child == 0:
        status = 70
        try:
            torch.set_num_threads(1)
            seen = kill_at(folder, event, delay)
            trained(folder, **options)
            folder.with_suffix(".events").write_text(str(len(seen)))
            status = 0
        finally:
            os._exit(status)
    until = time.monotonic() + 300
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def killed_and_resumed(tmp_path, count):
    """`count` kills spread over the writing of checkpoints; every resumed run ends as the uninterrupted one."""
    uninterrupted = weights(trained(tmp_path / "whole", save_total_limit=2))
    assert in_a_child(tmp_path / "counted", -1, 0, save_total_limit=1) == 0
    events = int((tmp_path / "counted.events").read_text())
    generator = random.Random(count)
    killed = 0
    for number in range(count):
        folder = tmp_path / f"run-{number}"
        options = {"save_total_limit": 1 + number % 2}
        event = 1 + (events - 1) * number // count
        killed += in_a_child(folder, event, generator.choice([0, 0.001, 0.004]), **options) == -signal.SIGKILL
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SkippedCheckpointWarning)
            resumed = trained(folder, resume=True, **options)
        assert same(weights(resumed), uninterrupted), (number, event)
        left = [path.name for path in folder.iterdir() if path.name.startswith("checkpoint-")]
        # a kill between the last checkpoint and the deletion leaves one too many, and a run at its end writes no more
        assert len(left) <= options["save_total_limit"] + 1, left
    assert killed >= count - 2  # a late delayed one may find the run at its end


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed process is a fork")
def test_kills_while_checkpoints_are_written_are_resumed_bitwise(tmp_path):
    killed_and_resumed(tmp_path, KILLS)


@pytest.mark.kill
def test_many_kills_while_checkpoints_are_written_are_resumed_bitwise(tmp_path):
    killed_and_resumed(tmp_path, MANY_KILLS)
