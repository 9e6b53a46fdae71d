"""Real transformers.Trainer runs: shrinking, accumulation, clipping, bf16, logs, resume, refusals."""

import json
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

import ecospa
from tests.model_zoo import VOCABULARY, ZOO

STEPS = 18
CONFIG = ecospa.EcoSpaConfig(
    target_size=0.6, target_scope="blocks", width_multiple=2, pace="curve", start_step=4, end_step=14, interval=3
)


class Tokens(torch.utils.data.Dataset):
    """Sixty-four fixed sequences."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randint(1, VOCABULARY, (64, 12), generator=generator)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def arguments(folder, **options):
    defaults = {
        "output_dir": str(folder), "max_steps": STEPS, "per_device_train_batch_size": 4, "learning_rate": 1e-3,
        "logging_steps": 3, "save_strategy": "no", "report_to": "none", "use_cpu": True, "seed": 1,
        "disable_tqdm": True, "dataloader_num_workers": 0, "lr_scheduler_type": "cosine",
    }  # fmt: skip
    return TrainingArguments(**(defaults | options))


def model_of(kind="gpt2"):
    torch.manual_seed(0)
    return ZOO[kind].build()


def trained(folder, kind="gpt2", resume=None, model=None, **options):
    trainer = ecospa.EcoSpaTrainer(
        model=model or model_of(kind), args=arguments(folder, **options), train_dataset=Tokens(), ecospa_config=CONFIG
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def same_weights(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
def test_trainer_shrinks_logs_and_saves(kind, tmp_path):
    trainer = trained(tmp_path, kind)
    history = trainer.ecospa.sparsity.history
    blocks = ecospa.accounting.parameters(trainer.model, "blocks")
    assert blocks == history[-1].block_parameters < 0.63 * history[0].block_parameters
    assert trainer.ecospa.sparsity.step == STEPS
    trainer.save_model(tmp_path / "final")
    again = ecospa.from_pretrained(tmp_path / "final")
    assert same_weights(again, trainer.model)


def test_progress_reaches_the_log(tmp_path, capsys):
    trained(tmp_path)
    printed = capsys.readouterr().out
    assert "qk_width" in printed and "parameters" in printed and "next_shrink_step" in printed


def test_resume_before_between_and_after_events_is_bitwise(tmp_path):
    whole = trained(tmp_path / "whole")
    options = {"save_strategy": "steps", "save_steps": 3}
    trained(tmp_path / "parts", **options)
    checkpoints = sorted((tmp_path / "parts").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert [path.name for path in checkpoints][:3] == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]
    for checkpoint in (checkpoints[0], checkpoints[2], checkpoints[4]):
        resumed = trained(tmp_path / f"again-{checkpoint.name}", resume=str(checkpoint), **options)
        assert same_weights(resumed.model, whole.model), checkpoint.name
        assert resumed.ecospa.sparsity.history == whole.ecospa.sparsity.history


def test_callback_on_a_plain_trainer_resumes_from_a_loaded_model(tmp_path):
    def plain(folder, model, resume=None, callback=None):
        callback = callback or ecospa.EcoSpaCallback(CONFIG)
        options = {"save_strategy": "steps", "save_steps": 9}
        trainer = Trainer(model, arguments(folder, **options), train_dataset=Tokens(), callbacks=[callback])
        trainer.train(resume_from_checkpoint=resume)
        return trainer, callback

    whole, first = plain(tmp_path / "a", model_of())
    checkpoint = tmp_path / "a" / "checkpoint-9"
    assert (checkpoint / "ecospa.json").exists()  # the callback seals what the plain Trainer has written
    assert json.loads((checkpoint / "config.json").read_text())["ecospa"]["widths"]
    resumed, second = plain(tmp_path / "b", ecospa.from_pretrained(checkpoint), resume=str(checkpoint))
    assert same_weights(resumed.model, whole.model)
    assert second.sparsity.history == first.sparsity.history
    with pytest.raises(RuntimeError, match="size mismatch"):
        plain(tmp_path / "c", model_of(), resume=str(checkpoint))


@pytest.mark.filterwarnings("ignore::ecospa.trainer_checkpoint.UnverifiedCheckpointWarning")
def test_checkpoint_without_the_callback_is_refused(tmp_path):
    model = model_of()
    Trainer(model, arguments(tmp_path, save_strategy="steps", save_steps=9), train_dataset=Tokens()).train()
    with pytest.raises(ecospa.ConfigError, match="written without EcoSpaCallback"):
        trained(tmp_path / "b", resume=str(tmp_path / "checkpoint-9"))


@pytest.mark.filterwarnings("ignore::ecospa.InexactOptimizerWarning")  # Adafactor
@pytest.mark.parametrize(
    "options",
    [
        {"gradient_accumulation_steps": 2},
        {"max_grad_norm": 0.1},
        {"bf16": True},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        {"optim": "adafactor"},
        {"gradient_checkpointing": True},
    ],
    ids=lambda options: next(iter(options)) + str(next(iter(options.values()))),
)
def test_training_options_work_together(tmp_path, options):
    trainer = trained(tmp_path, **options)
    assert trainer.ecospa.sparsity.finished
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(torch.isfinite(torch.tensor(losses)))


def test_skipped_optimizer_steps_are_not_estimated_from(tmp_path):
    trainer = trained(tmp_path)
    callback, sparsity = trainer.ecospa, trainer.ecospa.sparsity
    sparsity.finished = False
    before = sparsity.estimator.steps

    class Skipped:
        step_was_skipped = True

    callback.on_optimizer_step(trainer.args, trainer.state, trainer.control, optimizer=Skipped())
    assert sparsity.estimator.steps == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps", "save_steps": 3},
            "load_best_model_at_end",
        ),
        ({"fsdp": "full_shard"}, "fsdp"),
    ],
)
def test_what_cannot_work_together_is_refused_at_the_start(tmp_path, options, message):
    model = model_of()
    with pytest.raises(ecospa.ConfigError, match=message):
        ecospa.EcoSpaTrainer(
            model=model,
            args=arguments(tmp_path, **options),
            train_dataset=Tokens(),
            eval_dataset=Tokens(),
            ecospa_config=CONFIG,
        )


def test_damaged_trainer_checkpoint_is_named(tmp_path):
    trained(tmp_path, save_strategy="steps", save_steps=9)
    weights = Path(tmp_path / "checkpoint-9" / "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ecospa.CheckpointError, match=r"model\.safetensors"):
        trained(tmp_path / "b", resume=str(tmp_path / "checkpoint-9"))
