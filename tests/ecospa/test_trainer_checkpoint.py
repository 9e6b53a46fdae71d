"""Checkpoints of a Trainer: whole or not taken, and resumed bitwise, by every family."""

import json
import os
import random
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch
from transformers import Trainer

import ecospa
from ecospa.trainer_checkpoint import (
    SkippedCheckpointWarning,
    UnverifiedCheckpointWarning,
    newest_whole,
    rotate,
    whole,
)
from tests.ecospa.trainer_runs import CONFIG, STEPS, model_of, same, trained, trainer_of, weights
from tests.model_zoo import ZOO

KINDS = [
    *("gpt2", "vit", "timm-vit"),
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("llama-bias-tied", "roberta", "deit")),
]
FLIPS, MANY_FLIPS = 24, 300
FLIPPED = (
    "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin",
    "generation_config.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder and final weights of one run with checkpoints 2, 4 and 6; copy the folder before changing it."""
    folder = tmp_path_factory.mktemp("run")
    return folder, weights(trained(folder))


@pytest.fixture
def copied(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    return tmp_path / "run"


def flip(path, place, bit):
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)


# Resuming


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_resumes_bitwise(kind, tmp_path):
    uninterrupted = weights(trained(tmp_path, kind))
    assert same(weights(trained(tmp_path / "again", kind, resume=str(tmp_path / "checkpoint-2"))), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "timm-vit"])
def test_a_compiled_model_resumes_bitwise_and_is_saved_under_plain_names(kind, tmp_path):
    def compiled():
        return torch.compile(model_of(kind), backend="eager")

    options = {"remove_unused_columns": False}  # the Trainer does not see what a compiled model takes
    uninterrupted = weights(trained(tmp_path, kind, model=compiled(), **options))
    checkpoint = tmp_path / "checkpoint-4"
    for model in (compiled(), model_of(kind)):
        again = trained(tmp_path / "again", kind, model=model, resume=str(checkpoint), **options)
        assert same(weights(again), uninterrupted)
    assert b"_orig_mod" not in (checkpoint / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_trainers_own_compiling_resumes_bitwise(tmp_path):
    options = {"torch_compile": True, "torch_compile_backend": "eager"}
    uninterrupted = weights(trained(tmp_path, **options))
    assert same(weights(trained(tmp_path, resume=str(tmp_path / "checkpoint-2"), **options)), uninterrupted)


def test_a_loaded_model_and_the_same_trainer_resume_bitwise(run, copied):
    loaded = ecospa.from_pretrained(copied / "checkpoint-4")
    assert same(weights(trained(copied, model=loaded, resume=str(copied / "checkpoint-4"))), run[1])
    trainer = trainer_of(copied)
    trainer.train(resume_from_checkpoint=True)
    trainer.train(resume_from_checkpoint=True)
    assert same(weights(trainer), run[1])


@pytest.mark.parametrize("options", [{}, {"ignore_data_skip": True}, {"restore_callback_states_from_checkpoint": True}])
def test_resuming_at_the_very_end_changes_nothing(options, run, copied):
    trainer = trained(copied, resume=True, **options)
    assert same(weights(trainer), run[1])
    assert trainer.state.global_step == trainer.ecospa.sparsity.step == STEPS
    assert trainer.ecospa.sparsity.finished


@pytest.mark.parametrize("kind", ["gpt2", "vit"])
def test_a_finished_run_goes_on_when_more_steps_are_asked_for(kind, tmp_path):
    trained(tmp_path, kind)
    longer = trained(tmp_path, kind, resume=True, max_steps=STEPS + 2)
    history = longer.ecospa.sparsity.history
    assert longer.state.global_step == STEPS + 2 and history[-1].step <= STEPS


def test_restored_callback_states_keep_the_callback_and_its_configuration(run, copied):
    options = {"restore_callback_states_from_checkpoint": True}
    trainer = trained(copied, resume=str(copied / "checkpoint-2"), **options)
    assert trainer.ecospa in trainer.callback_handler.callbacks and trainer.ecospa.sparsity.step == STEPS
    assert same(weights(trainer), run[1])


def test_another_configuration_is_refused_before_the_model_changes(copied):
    other = ecospa.EcoSpaConfig(**{**CONFIG.__dict__, "target_size": 0.8})
    trainer = trainer_of(copied, config=other)
    before = weights(trainer)
    with pytest.raises(ecospa.ConfigError, match=r"target_size is 0\.8.*target_size=0\.6"):
        trainer.train(resume_from_checkpoint=True)
    assert same(weights(trainer), before)


def test_another_optimizer_is_refused(copied):
    with pytest.raises(ecospa.ConfigError, match=r"the optimizer is Adafactor.*AdamW"):
        trained(copied, resume=str(copied / "checkpoint-2"), optim="adafactor")


def test_another_dtype_is_refused(copied):
    with pytest.raises(ecospa.CheckpointError, match=r"float32, the model's torch\.bfloat16"):
        trained(copied, model=model_of("gpt2").bfloat16(), resume=str(copied / "checkpoint-2"))


LATE = ecospa.EcoSpaConfig(**{**CONFIG.__dict__, "interval": 4})
"""The first cut is in step 5."""


@pytest.mark.parametrize("failing", [1, 2, 4])
def test_a_smaller_batch_starts_from_the_checkpoint_again(failing, tmp_path):
    """Memory runs out in the first, second or fourth step after resuming at step 2: by the fourth the model is cut."""
    trained(tmp_path, config=LATE)
    checkpoint = str(tmp_path / "checkpoint-2")
    trainer = trainer_of(tmp_path / "again", config=LATE, auto_find_batch_size=True)
    step, calls = trainer.training_step, []

    def once_out_of_memory(*args, **kwargs):
        calls.append(1)
        if len(calls) == failing:
            raise RuntimeError("CUDA out of memory.")
        return step(*args, **kwargs)

    trainer.training_step = once_out_of_memory
    if failing == 4:
        with pytest.raises(ecospa.CheckpointError, match=r"memory ran out .* has been cut since"):
            trainer.train(resume_from_checkpoint=checkpoint)
        return
    trainer.train(resume_from_checkpoint=checkpoint)
    assert trainer.state.global_step == trainer.ecospa.sparsity.step == STEPS and trainer._train_batch_size < 4
    smaller = {"per_device_train_batch_size": trainer._train_batch_size}
    fresh = trained(tmp_path / "fresh", config=LATE, resume=checkpoint, **smaller)
    assert same(weights(fresh), weights(trainer))


# What is whole


def test_every_file_is_listed_and_a_missing_or_foreign_one_is_named(copied):
    checkpoint = copied / "checkpoint-4"
    listed = set(json.loads((checkpoint / "ecospa.json").read_text())["sha256"])
    assert listed == {path.name for path in checkpoint.iterdir()} - {"ecospa.json"}
    assert {"model.safetensors", "config.json", *FLIPPED} <= listed
    for name in sorted(listed):
        (checkpoint / name).rename(copied / "aside")
        with pytest.raises(ecospa.CheckpointError, match=name):
            whole(checkpoint)
        (copied / "aside").rename(checkpoint / name)
    torch.save({}, checkpoint / "scaler.pt")
    with pytest.raises(ecospa.CheckpointError, match=r"scaler\.pt is no file of this checkpoint"):
        whole(checkpoint)


def test_a_lost_manifest_is_noticed(copied):
    checkpoint = copied / "checkpoint-4"
    (checkpoint / "ecospa.json").unlink()
    with pytest.raises(ecospa.CheckpointError, match=r"ecospa\.json"):
        whole(checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    del config["ecospa"]["manifest"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ecospa.CheckpointError, match="which listed every file"):
        whole(checkpoint)


def flipped_bytes(checkpoint, count):
    """Every one of `count` flipped bits in the files beside the model is refused."""
    generator = random.Random(0)
    for number in range(count):
        path = checkpoint / FLIPPED[number % len(FLIPPED)]
        good = path.read_bytes()
        flip(path, generator.randrange(len(good)), generator.randrange(8))
        with pytest.raises(ecospa.CheckpointError, match=path.name.replace(".", r"\.")):
            whole(checkpoint)
        path.write_bytes(good)
    whole(checkpoint)


def test_flipped_bytes_are_found(copied):
    flipped_bytes(copied / "checkpoint-4", FLIPS)


@pytest.mark.fuzz
def test_three_hundred_flipped_bytes_are_found(copied):
    flipped_bytes(copied / "checkpoint-4", MANY_FLIPS)


def test_a_damaged_checkpoint_given_by_its_path_is_an_error_and_nothing_changes(copied):
    flip(copied / "checkpoint-4" / "optimizer.pt", 1000, 3)
    trainer = trainer_of(copied)
    before = weights(trainer)
    with pytest.raises(ecospa.CheckpointError, match=r"optimizer\.pt"):
        trainer.train(resume_from_checkpoint=str(copied / "checkpoint-4"))
    assert same(weights(trainer), before)


def test_checkpoints_without_optimizer_cannot_be_resumed(tmp_path):
    trained(tmp_path, save_only_model=True)
    for resume in (True, str(tmp_path / "checkpoint-4")):
        with pytest.raises(ecospa.CheckpointError, match="save_only_model=True"):
            trained(tmp_path, resume=resume)


def test_checkpoints_of_earlier_releases_are_read_with_a_warning_if_everything_is_there(run, copied):
    checkpoint = copied / "checkpoint-4"
    as_an_earlier_release(checkpoint)
    with pytest.warns(UnverifiedCheckpointWarning, match="checkpoint-4 has no manifest of all its files"):
        assert same(weights(trained(copied, resume=str(checkpoint))), run[1])
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "model.safetensors"):
        shutil.copytree(copied / "checkpoint-2", copied / "incomplete")
        as_an_earlier_release(copied / "incomplete")
        (copied / "incomplete" / name).unlink()
        with pytest.raises(ecospa.CheckpointError, match=name if "model" not in name else "safetensors"):
            whole(copied / "incomplete")
        shutil.rmtree(copied / "incomplete")


def as_an_earlier_release(checkpoint):
    (checkpoint / "ecospa.json").unlink()
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    attributes = state["stateful_callbacks"]["EcoSpaCallback"]["attributes"]
    del attributes["sealed"]
    for name in ("weights", "optimizer", "config"):
        del attributes["saved_state"][name]
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    config = json.loads((checkpoint / "config.json").read_text())
    config.get("ecospa", {}).pop("manifest", None)
    (checkpoint / "config.json").write_text(json.dumps(config))


# Which one is taken


def test_the_newest_whole_checkpoint_is_taken_and_damaged_ones_are_named(run, copied):
    flip(copied / "checkpoint-6" / "scheduler.pt", 30, 1)
    (copied / "checkpoint-4" / "optimizer.pt").unlink()
    with pytest.warns(SkippedCheckpointWarning) as caught:
        resumed = trained(copied, resume=True)
    messages = [str(one.message) for one in caught if one.category is SkippedCheckpointWarning]
    assert ["checkpoint-6:" in messages[0], "scheduler.pt" in messages[0]] == [True, True]
    assert ["checkpoint-4:" in messages[1], "optimizer.pt" in messages[1]] == [True, True]
    assert "resuming from" in messages[0] and same(weights(resumed), run[1])


def test_none_whole_lists_each_and_why(copied):
    for number, name in ((2, "optimizer.pt"), (4, "trainer_state.json"), (6, "training_args.bin")):
        flip(copied / f"checkpoint-{number}" / name, 50, 2)
    with pytest.raises(ecospa.CheckpointError) as caught:
        newest_whole(copied)
    for words in ("checkpoint-2", "optimizer.pt", "checkpoint-4", "trainer_state.json", "training_args.bin"):
        assert words in str(caught.value)
    for empty in (copied / "checkpoint-2", copied / "nowhere"):
        with pytest.raises(ecospa.CheckpointError, match="no folder of the name checkpoint-N"):
            newest_whole(empty)


def test_odd_names_do_no_harm(copied):
    (copied / "checkpoint-abc").mkdir()
    (copied / "checkpoint-7x").mkdir()
    (copied / "checkpoint--8").mkdir()
    (copied / "checkpoint-10").write_text("a file")
    (copied / "checkpoint-11").mkdir()
    (copied / "checkpoint-12").symlink_to(copied / "nowhere")
    (copied / ("checkpoint-" + "9" * 200)).mkdir()
    with pytest.warns(SkippedCheckpointWarning) as caught:
        assert newest_whole(copied).folder.name == "checkpoint-6"
    assert len([one for one in caught if one.category is SkippedCheckpointWarning]) == 4
    (copied / "checkpoint-6").rename(copied / "elsewhere")
    (copied / "checkpoint-13").symlink_to(copied / "elsewhere")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedCheckpointWarning)
        assert newest_whole(copied).state["global_step"] == 6


# Writing


def test_old_checkpoints_go_after_the_new_one_is_whole_and_the_best_stays(tmp_path):
    for number in (100, 2, 4):  # 100 is of an earlier run
        (tmp_path / f"checkpoint-{number}").mkdir()
        os.utime(tmp_path / f"checkpoint-{number}", (1000 + number % 100, 1000 + number % 100))
    (tmp_path / "checkpoint-abc").mkdir()
    rotate(tmp_path, None, [])
    rotate(tmp_path, 0, [])
    assert len(list(tmp_path.iterdir())) == 4
    rotate(tmp_path, 1, (tmp_path / "checkpoint-4", str(tmp_path / "checkpoint-2")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4", "checkpoint-abc"]


def test_limit_and_best_checkpoint_name_their_place(tmp_path):
    trainer = trainer_of(
        tmp_path, save_strategy="best", metric_for_best_model="loss", eval_strategy="steps", eval_steps=2
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.parent == tmp_path and whole(best).state["best_model_checkpoint"] == str(best)
    trained(tmp_path / "limited", save_total_limit=1)
    assert [path.name for path in (tmp_path / "limited").iterdir()] == ["checkpoint-6"]


def test_a_checkpoint_takes_the_place_of_an_old_one_whole(copied):
    (copied / "checkpoint-2" / "model-00001-of-00009.safetensors").write_bytes(b"stale")
    (copied / "checkpoint-4" / "optimizer.pt").write_bytes(b"")
    trained(copied)
    for number in (2, 4, 6):
        whole(copied / f"checkpoint-{number}")
    assert not (copied / "checkpoint-2" / "model-00001-of-00009.safetensors").exists()


@pytest.mark.parametrize("where", ["torch.save", "ecospa.trainer_checkpoint.write_manifest"])
def test_a_full_disk_leaves_older_checkpoints_whole(where, tmp_path, monkeypatch):
    module, _, name = where.rpartition(".")
    original, calls = getattr(sys.modules[module], name), []

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) > (5 if module == "torch" else 1):
            raise OSError(28, "No space left on device")
        return original(*args, **kwargs)

    monkeypatch.setattr(where, full)
    with pytest.raises((OSError, ecospa.CheckpointError), match="No space left on device"):
        trained(tmp_path, save_total_limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    monkeypatch.undo()
    assert newest_whole(tmp_path).folder.name == "checkpoint-2"


def test_a_checkpoint_is_pushed_from_its_place(tmp_path, monkeypatch):
    pushed = []
    trainer = trainer_of(tmp_path, max_steps=2)
    monkeypatch.setattr(
        Trainer, "_push_from_checkpoint", lambda self, folder: pushed.append((folder, whole(Path(folder))))
    )
    trainer.args.push_to_hub = True
    trainer.state.global_step = 2
    trainer.create_optimizer_and_scheduler(2)
    trainer.ecospa.on_train_begin(
        trainer.args, trainer.state.__class__(), trainer.control, model=trainer.model, optimizer=trainer.optimizer
    )
    trainer._save_checkpoint(trainer.model, None)
    assert [folder for folder, _ in pushed] == [str(tmp_path / "checkpoint-2")]


def test_a_saved_model_replaces_the_one_before_and_leaves_the_rest(copied, monkeypatch):
    trainer = trainer_of(copied)
    (copied / "notes.txt").write_text("mine")
    trainer.save_model()
    (copied / "model-00001-of-00002.safetensors").write_bytes(b"stale")
    trainer.save_model()
    assert (copied / "notes.txt").read_text() == "mine" and whole(copied / "checkpoint-6")
    assert not (copied / "model-00001-of-00002.safetensors").exists()
    assert same(list(ecospa.from_pretrained(copied).state_dict().values()), weights(trainer))
    monkeypatch.chdir(copied)  # a working folder cannot be swapped
    trainer.save_model(".")
    assert same(list(ecospa.from_pretrained(copied).state_dict().values()), weights(trainer))


def test_kinds_cover_converted_tied_and_foreign_models():
    assert {getattr(kind, "values", (kind,))[0] for kind in KINDS} <= set(ZOO)
