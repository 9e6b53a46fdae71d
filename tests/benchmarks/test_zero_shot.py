"""Zero-shot tasks through lm-eval: where their data lie, what is scored, and that shrunk models pass through."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks import registry
from benchmarks.data import source as sources
from benchmarks.data.text.tokenizer import train_tokenizer
from benchmarks.data.zero_shot import continuations, harness
from benchmarks.experiment import MethodRef
from benchmarks.experiments import llama_zero_shot
from benchmarks.metrics.zero_shot import chance, zero_shot_metrics
from benchmarks.models.language import build_model
from benchmarks.specs.language import DataSpec, ModelSpec
from benchmarks.task import Task
from results import Metric

WORDS = [f"{thing} number {n} is {kind}" for n in range(40) for thing, kind in (("model", "small"), ("width", "even"))]
DOCUMENTS = [" ".join(WORDS[start:] + WORDS[:start]) for start in range(0, 60, 12)]


def model_and_tokenizer() -> tuple[Any, Any]:
    """An untrained LLaMA of two layers: its scores are arbitrary, but its own."""
    tokenizer = train_tokenizer(DOCUMENTS, 300)
    return build_model(ModelSpec(2, 32, 4, 300, 256, family="llama"), seed=5), tokenizer


def test_questions_have_one_passage_that_follows_and_three_of_other_documents() -> None:
    questions = continuations.continuations(DOCUMENTS, 30, seed=1)
    assert len(questions) == 30 and questions == continuations.continuations(DOCUMENTS, 30, seed=1)
    assert len({question["answer"] for question in questions}) == continuations.CHOICES
    for question in questions:
        right = f"{question['start']} {question['endings'][question['answer']]}"
        assert any(right in document for document in DOCUMENTS)
        assert len(question["endings"]) == continuations.CHOICES
        assert all(len(ending.split()) == 12 for ending in question["endings"])


def test_the_same_questions_are_written_once(tmp_path: Path) -> None:
    questions = continuations.continuations(DOCUMENTS, 12)
    one, again, other = (
        continuations.specification(asked, tmp_path) for asked in (questions, questions, questions[1:])
    )
    files = [one["dataset_kwargs"]["data_files"]["test"] for one in (one, again, other)]
    assert files[0] == files[1] != files[2]
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_questions_need_documents_enough() -> None:
    with pytest.raises(ValueError, match="fewer than 4 documents of 36 words; take more text"):
        continuations.continuations(DOCUMENTS[:3], 10)


def test_accuracies_are_those_of_likelihoods_added_by_hand(tmp_path: Path) -> None:
    model, tokenizer = model_and_tokenizer()
    questions = continuations.continuations(DOCUMENTS, 12)
    task = continuations.specification(questions, tmp_path)
    model.train()
    found = zero_shot_metrics(model, tokenizer, [task], [], 256, None, 4)
    assert model.training
    hits, normed = 0, 0
    for question in questions:
        scores = [likelihood(model, tokenizer, question["start"], f" {ending}") for ending in question["endings"]]
        sizes = [len(ending) for ending in question["endings"]]
        hits += max(range(4), key=scores.__getitem__) == question["answer"]
        normed += max(range(4), key=lambda n: scores[n] / sizes[n]) == question["answer"]
    assert found["acc/continuation"].value == pytest.approx(hits / 12)
    assert found["acc_norm/continuation"].value == pytest.approx(normed / 12)
    assert found["acc/continuation"].n == 12 and found["chance/continuation"].value == 0.25
    share = hits / 12
    assert found["acc_stderr/continuation"].value == pytest.approx((share * (1 - share) / 11) ** 0.5)


@torch.no_grad()
def likelihood(model: Any, tokenizer: Any, start: str, ending: str) -> float:
    """Log-likelihood of an ending behind a start."""
    model.eval()
    context = tokenizer(start, add_special_tokens=False)["input_ids"]
    whole = tokenizer(start + ending, add_special_tokens=False)["input_ids"]
    scores = F.log_softmax(model(input_ids=torch.tensor([whole])).logits[0, :-1].float(), -1)
    return sum(float(scores[place - 1, whole[place]]) for place in range(len(context), len(whole)))


@torch.no_grad()
def test_an_answer_longer_than_the_model_is_scored_as_far_as_it_fits(tmp_path: Path) -> None:
    model, tokenizer = model_and_tokenizer()
    questions = continuations.continuations(DOCUMENTS, 8)
    task, length = continuations.specification(questions, tmp_path), 6
    found = zero_shot_metrics(model, tokenizer, [task], [], length, None, 4)
    model.eval()
    hits = 0
    for question in questions:
        scores = []
        for ending in question["endings"]:
            context = tokenizer(question["start"], add_special_tokens=False)["input_ids"]
            whole = tokenizer(f"{question['start']} {ending}", add_special_tokens=False)["input_ids"]
            answer = whole[len(context) :][:length]
            window = torch.tensor([(context + answer)[-length - 1 :]])
            logits = F.log_softmax(model(input_ids=window[:, :-1]).logits[0].float(), -1)[-len(answer) :]
            scores.append(float(logits.gather(1, torch.tensor(answer)[:, None]).sum()))
        hits += max(range(4), key=scores.__getitem__) == question["answer"]
    assert found["acc/continuation"].value == pytest.approx(hits / 8)


def test_chance_is_one_over_the_choices_of_every_question() -> None:
    assert chance([{"resps": [1, 2]}, {"resps": [1, 2, 3, 4]}]) == pytest.approx(0.375)


def test_a_groups_score_is_over_the_questions_of_all_of_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval

    counts = {name: {"original": 9, "effective": number} for name, number in (("a", 3), ("b", 5))}
    found = {
        "results": {name: {"acc,none": 0.5} for name in ("a", "b", "inner", "outer")},
        "n-samples": counts,
        "group_subtasks": {"inner": ["a"], "outer": ["inner", "b"]},
        "samples": {"a": [{"resps": [1, 2]}] * 6},  # once for each of two filters
    }
    monkeypatch.setattr(lm_eval, "simple_evaluate", lambda **given: found)
    metrics = zero_shot_metrics(*model_and_tokenizer(), [], [], 256, None, 4)
    assert {name: metrics[f"acc/{name}"].n for name in found["results"]} == {"a": 3, "b": 5, "inner": 3, "outer": 8}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with a few questions of PIQA and ARC-easy, in the form of the Hub."""
    from datasets import Dataset

    piqa = [{"goal": f"goal {n}", "sol1": "do one", "sol2": "do another", "label": n % 2} for n in range(6)]
    choices = {"text": ["one", "two", "three"], "label": ["A", "B", "C"]}
    arc = [{"id": str(n), "question": f"what {n}?", "choices": choices, "answerKey": "ABC"[n % 3]} for n in range(6)]
    for folder, split, rows in (
        ("baber__piqa/default", "validation", piqa),
        ("allenai__ai2_arc/ARC-Easy", "test", arc),
        ("allenai__ai2_arc/ARC-Easy", "validation", arc[:2]),
    ):
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows).to_parquet(place / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("ECOSPA_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("mirror")
def test_lm_evals_own_tasks_read_the_mirror() -> None:
    model, tokenizer = model_and_tokenizer()
    names = ("piqa", "arc_easy")
    specifications = [harness.specification(name, "cpu") for name in names]
    found = zero_shot_metrics(model, tokenizer, specifications, harness.task_folders(names), 256, 4, 4)
    assert found["acc/piqa"].n == found["acc/arc_easy"].n == 4  # the limit
    assert found["chance/piqa"].value == 0.5 and found["chance/arc_easy"].value == pytest.approx(1 / 3)
    prompt, answers = "Question: what 0?\nAnswer:", (" one", " two", " three")
    scores = [likelihood(model, tokenizer, prompt, answer) for answer in answers]
    one = zero_shot_metrics(model, tokenizer, specifications[1:], harness.task_folders(names), 256, 1, 4)
    assert one["acc/arc_easy"].value == float(max(range(3), key=scores.__getitem__) == 0)


def test_a_changed_file_changes_the_fingerprint(mirror: Path) -> None:
    before = harness.fingerprint(("piqa",))
    assert before == harness.fingerprint(("piqa",)) != harness.fingerprint(("arc_easy",))
    path = mirror / "baber__piqa" / "default" / "validation-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes() + b"0")
    assert harness.fingerprint(("piqa",)) != before


@pytest.mark.usefixtures("mirror")
def test_missing_and_unknown_tasks_are_named() -> None:
    with pytest.raises(sources.MissingSourceError, match=r"lm-eval boolq', tier 'cpu'.*aps__super_glue/boolq"):
        harness.specification("boolq", "cpu")
    with pytest.raises(ValueError, match="task is 'mmlu'; choose from boolq, piqa"):
        harness.specification("mmlu", "cpu")
    assert harness.source("piqa").missing("cpu") is None
    assert "openbookqa" in (harness.source("openbookqa").missing("cpu") or "")


def test_the_hub_is_read_by_the_tasks_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECOSPA_DATA", "hub")
    assert harness.specification("gsm8k", "cpu") == "gsm8k"
    assert harness.specification("bbh_cot_fewshot", "paper") == "bbh_cot_fewshot"


def test_a_shrunk_model_is_judged_through_the_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole experiment at toy size: embedded text, no mirror, one shrunk model."""
    from benchmarks.experiments import llama_finetuning
    from benchmarks.specs import pretrained
    from tests.benchmarks.tiny_runs import run_context

    text = sources.Corpus(tuple(DOCUMENTS), tuple(DOCUMENTS))
    tiny = sources.Source("tiny", lambda *_: text, lambda configuration: "1", lambda configuration, tier: None)
    monkeypatch.setattr(sources, "find", lambda name: tiny)
    own = pretrained.LLAMAS["smoke"].pretraining
    assert own is not None
    small = replace(
        own,
        architecture=replace(own.architecture, layers=2, width=32, vocabulary=300),
        training=replace(own.training, steps=4, batch_size=4, micro_batch_size=4, warmup_steps=1),
        protocol=replace(own.protocol, tokenizer="bpe-300"),
    )
    subject = llama_finetuning.SUBJECTS["smoke"][0]
    training = replace(subject.scale.training, steps=6, batch_size=4, micro_batch_size=4)
    scale = replace(
        subject.scale, model=pretrained.FoundationSpec("llama", small), training=training, end_step=5, interval=1
    )  # fmt: skip
    monkeypatch.setattr(llama_finetuning, "SUBJECTS", {"smoke": (replace(subject, scale=scale),)})
    (cell,) = llama_zero_shot.cells("smoke", (MethodRef("ecospa"),))
    from benchmarks.experiment import Run

    outcome = llama_zero_shot.EXPERIMENT.execute(Run(cell, 0), run_context(tmp_path))
    assert 0 <= outcome.metrics["acc/continuation"].value <= 1
    assert outcome.metrics["perplexity"].value > 1
    assert outcome.metrics["block_parameters"].value < 0.6 * outcome.plan_history[0].block_parameters


def test_protocols_say_tasks_and_limits_and_toys_generate_nothing() -> None:
    for tier, own in llama_zero_shot.TIERS.items():
        for cell in registry.experiment("llama_zero_shot").cells(tier, (MethodRef("dense"), MethodRef("ecospa"))):
            assert json.loads(json.dumps(cell.config)) == cell.config
            protocol = cell.settings.protocol
            if isinstance(protocol, llama_zero_shot.BehaviorProtocol):
                assert cell.config["model"]["name"] == "SmolLM2-135M-Instruct" and cell.seeds == (0,)
                chosen, generated = protocol.asked
                assert len(chosen[0]) == 7 and "gsm8k" in generated[0] and len(generated[0]) == 4
                assert protocol.tasks == (*chosen[0], *generated[0]) and chosen[1] > generated[1]
                continue
            assert cell.config["protocol"]["limit"] == own.limit
            assert protocol.tasks == tuple(own.harness_tasks.split()) and protocol.asked == (
                (protocol.tasks, own.limit),
            )
            assert ("gsm8k" in protocol.tasks) == (tier == "paper")


def test_the_real_model_is_judged_as_it_came_and_cut_at_once_as_well() -> None:
    cells = registry.experiment("llama_zero_shot").cells("cpu", tuple(map(MethodRef, ("dense", "ecospa", "surgeon"))))
    real = [cell for cell in cells if cell.config["model"]["name"] == "SmolLM2-135M-Instruct"]
    assert [(cell.settings.protocol.procedure, cell.label) for cell in real] == [
        ("one-shot", "dense"), ("one-shot", "ecospa 0.8"), ("fine-tuned", "dense"), ("fine-tuned", "ecospa 0.8"),
        ("fine-tuned", "ecospa 0.5"), ("fine-tuned", "surgeon 0.8"), ("fine-tuned", "surgeon 0.5"),
    ]  # fmt: skip
    assert {cell.settings.procedure for cell in real[:2]} == {"one_shot"}


def test_every_task_is_asked_as_many_questions_as_its_protocol_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen and generated answers in one evaluation, each kind with its own limit."""
    from benchmarks.tasks import fine_tuning, zero_shot

    calls: list[tuple[list[str], Any, int]] = []

    def scores(model, tokenizer, specifications, folders, length, limit, batch_size):
        names = [one if isinstance(one, str) else one["task"] for one in specifications]
        calls.append((names, limit, len(folders)))
        return {f"acc/{name}": Metric(0.5, "", True, 1) for name in names}

    task = SimpleNamespace(fingerprint="text", evaluate=lambda model: {"perplexity": Metric(9.0, "", False)})
    monkeypatch.setattr(fine_tuning, "load", lambda run, folder: Task(None, None, 1, task.evaluate, "text", "text"))
    monkeypatch.setattr(fine_tuning, "foundation_of", lambda run, folder: SimpleNamespace(tokenizer=None))
    monkeypatch.setattr(harness, "specification", lambda name, tier: name)
    monkeypatch.setattr(harness, "fingerprint", " ".join)
    monkeypatch.setattr(zero_shot, "zero_shot_metrics", scores)
    text = sources.Corpus((), tuple(DOCUMENTS))
    monkeypatch.setattr(sources, "find", lambda name: SimpleNamespace(load=lambda *_: text))
    protocol = llama_zero_shot.BehaviorProtocol(
        "x", 16, 15, "test", harness_tasks="piqa arc_easy", limit=7, continuations=8,
        generated_tasks="gsm8k bbh_fewshot_navigate", generated_limit=3,
    )  # fmt: skip
    settings = SimpleNamespace(
        protocol=protocol, data=DataSpec("tiny", "default"), training=SimpleNamespace(micro_batch_size=2)
    )
    run = SimpleNamespace(cell=SimpleNamespace(settings=settings, tier="cpu"))
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=64))
    metrics = zero_shot.load(run, tmp_path).evaluate(model)  # type: ignore[arg-type]
    assert calls == [
        (["piqa", "arc_easy", "continuation"], 7, 2), (["gsm8k", "bbh_fewshot_navigate"], 3, 2),
    ]  # fmt: skip
    assert set(metrics) >= {"perplexity", "acc/piqa", "acc/continuation", "acc/gsm8k"}
