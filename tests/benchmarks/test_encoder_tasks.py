"""Encoders learn to classify and to answer, shrink on the way, go on after an interrupt, and are judged right."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import task
from benchmarks.data.examples import Question
from benchmarks.data.text.encoded import encoded_texts, marked
from benchmarks.data.text.qa_windows import OUTSIDE, encoded_questions, spans, windows
from benchmarks.data.text.wordpiece import train_wordpiece
from benchmarks.models.encoder import build_encoder, label_loss, span_loss
from benchmarks.specs.encoder import EncoderSpec, ExamplesSpec
from benchmarks.tasks.question_answering import best_spans, read_answers
from benchmarks.tasks.text_classification import scores
from tests.benchmarks.test_runner import interrupt_at, value
from tests.benchmarks.tiny_encoders import CLASSIFICATION, ENCODER, SPANS, questions, run_of, use_tiny_examples
from tests.benchmarks.tiny_runs import run_context, train

KINDS = ("labels", "questions")


@pytest.fixture(autouse=True)
def tiny_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_examples(monkeypatch)


def test_a_dense_encoder_learns_to_classify(tmp_path: Path) -> None:
    outcome = train(run_of("labels", steps=60), run_context(tmp_path))
    assert value(outcome, "score") == value(outcome, "accuracy") == 100.0
    assert value(outcome, "majority_score") == 50.0 and value(outcome, "eval_loss") < 0.1
    assert {"f1", "matthews", "parameters", "step_flops", "final_step_time_ratio"} <= set(outcome.metrics)
    assert outcome.metrics["score"].n == 12


def test_a_dense_encoder_learns_to_answer(tmp_path: Path) -> None:
    outcome = train(run_of("questions", steps=120), run_context(tmp_path))
    assert value(outcome, "f1") >= 80.0 > 20.0 > value(outcome, "first_words_f1")
    assert value(outcome, "exact_match") <= value(outcome, "f1")


@pytest.mark.slow
def test_real_numbers_are_learnt_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_examples(monkeypatch, classes=())
    protocol = replace(CLASSIFICATION, score="pearson+spearman")
    outcome = train(run_of("labels", steps=80, protocol=protocol), run_context(tmp_path))
    assert value(outcome, "score") == pytest.approx((value(outcome, "pearson") + value(outcome, "spearman")) / 2)
    assert value(outcome, "pearson") > 90.0 and value(outcome, "majority_score") == 0.0
    assert outcome.metrics["eval_loss"].unit == "squared error"
    assert "accuracy" not in outcome.metrics


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("movement", 0.5),
        *(pytest.param(name, 0.5, marks=pytest.mark.slow) for name in ("ecospa", "magnitude")),
    ],
)
def test_an_encoder_shrinks_and_goes_on_after_an_interrupt(
    kind: str, method: str, target: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(run_of(kind, method, target), run_context(tmp_path / "whole"))
    first, last = whole.plan_history[0].block_parameters, whole.plan_history[-1].block_parameters
    assert last == pytest.approx(target * first, rel=0.08)
    interrupt_at(8, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(run_of(kind, method, target), run_context(tmp_path / "halves"))
    resumed = train(run_of(kind, method, target), run_context(tmp_path / "halves"))
    assert resumed.loss_curve == whole.loss_curve and resumed.plan_history == whole.plan_history
    score = "score" if kind == "labels" else "f1"
    assert value(resumed, score) == value(whole, score)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_dense_encoder_is_small_from_the_first_step(kind: str, tmp_path: Path) -> None:
    outcome = train(run_of(kind, "small_dense", 0.5), run_context(tmp_path))
    assert len(outcome.plan_history) == 1
    assert value(outcome, "training_bytes_peak") == 16 * value(outcome, "parameters")


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_several_batches_have_the_gradient_of_one_large_batch(kind: str, tmp_path: Path) -> None:
    """Transformers leaves the division to whoever computes the loss; the encoders' own loss forgets it."""
    base = run_of(kind).cell.settings.training
    curves = []
    for size in (8, 4):
        training = replace(base, micro_batch_size=size, max_grad_norm=1e-3)  # clipped, so that a factor would show
        outcome = train(run_of(kind, training=training), run_context(tmp_path / str(size)))
        curves.append([loss for _, loss in outcome.loss_curve])
    # later the epochs end, at other examples
    assert curves[0][:6] == pytest.approx(curves[1][:6], rel=1e-4)


def test_losses_are_those_of_transformers() -> None:
    generator = torch.Generator().manual_seed(2)
    inputs = {"input_ids": torch.randint(1, 200, (4, 12), generator=generator)}
    span = build_encoder(ENCODER, None, 0)
    labels = torch.tensor([[1, 4], [2, 2], [0, 0], [11, 11]])
    plain = super(type(span), span).forward(**inputs, start_positions=labels[:, 0], end_positions=labels[:, 1])
    found = span(**inputs, labels=labels)
    torch.testing.assert_close(found.loss, plain.loss)
    torch.testing.assert_close(span_loss(found.logits, labels, 16), plain.loss / 2)
    for outputs, labels in ((3, torch.tensor([0, 2, 1, 1])), (1, torch.tensor([0.5, 2.0, -1.0, 0.0]))):
        found = build_encoder(ENCODER, outputs, 0)(**inputs, labels=labels)
        torch.testing.assert_close(label_loss(found.logits, labels), found.loss)


def test_training_windows_point_at_their_answers() -> None:
    corpus = questions()
    tokenizer = train_wordpiece((text for q in corpus.train for text in (q.question, q.context)), 200)
    inputs, owners, offsets = windows(tokenizer, corpus.train, SPANS)
    labels = spans(corpus.train, owners, offsets)
    assert len(owners) > len(corpus.train) and set(owners.tolist()) == set(range(len(corpus.train)))
    answered = set()
    for window, (first, last) in enumerate(labels.tolist()):
        question = corpus.train[owners[window]]
        seen = offsets[window][offsets[window][:, 0] != OUTSIDE]
        begins, ends = question.start, question.start + len(question.answers[0])
        whole = seen[:, 0].min() <= begins and seen[:, 1].max() >= ends
        assert whole == (first > 0)
        if whole:
            ids = inputs["input_ids"][window][first : last + 1].tolist()
            assert tokenizer.decode(ids) == question.answers[0]
            answered.add(owners[window])
    assert answered == set(range(len(corpus.train)))
    assert (inputs["input_ids"] == 2).sum(1).tolist() == [1] * len(owners)  # one [CLS] each


def test_windows_without_the_answer_can_be_left_out(tmp_path: Path) -> None:
    data = ExamplesSpec("tiny", "questions")
    every, chosen = (
        encoded_questions(data, replace(SPANS, only_answered=only), "smoke", tmp_path) for only in (False, True)
    )
    assert (every.train_labels[:, 1] == 0).any() and (chosen.train_labels[:, 1] > 0).all()
    assert len(chosen.train["input_ids"]) == len(chosen.train_labels) == (every.train_labels[:, 1] > 0).sum()
    assert len(chosen.evaluation["input_ids"]) == len(every.evaluation["input_ids"])


def test_words_of_the_question_can_be_marked_in_the_context() -> None:
    question = Question("where is rome ?", "the city rome is old . where else ?", ("old",), 17)
    tokenizer = train_wordpiece([question.question, question.context] * 3, 200)
    protocol = replace(SPANS, marked=True)
    inputs, _, offsets = windows(tokenizer, [question], protocol)
    plain, _, _ = windows(tokenizer, [question], SPANS)
    assert np.array_equal(inputs["input_ids"], plain["input_ids"])
    context = offsets[0, :, 0] != OUTSIDE
    unmarked = context & (inputs["token_type_ids"][0] == 1)
    begins = [question.context[start:end] for start, end in offsets[0][unmarked].tolist()]
    assert begins == ["the", "city", "old", ".", "else"]
    assert np.array_equal(inputs["token_type_ids"][0][~context], plain["token_type_ids"][0][~context])


def test_words_of_the_first_text_can_be_marked_in_the_second(tmp_path: Path) -> None:
    data = ExamplesSpec("tiny", "labels")
    plain, found = (
        encoded_texts(data, replace(CLASSIFICATION, marked=own), "smoke", tmp_path).train for own in (False, True)
    )
    assert np.array_equal(plain["input_ids"], found["input_ids"])
    changed = plain["token_type_ids"] != found["token_type_ids"]
    assert not changed.any()  # the two texts share no word
    pair = {"input_ids": np.array([[2, 7, 8, 3, 8, 9, 7, 3, 0]]), "attention_mask": np.array([[1] * 8 + [0]])}
    pair["token_type_ids"] = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 0]])
    second = np.array([[False] * 4 + [True] * 3 + [False] * 2])
    assert marked(pair, second).tolist() == [[0, 0, 0, 0, 0, 1, 0, 1, 0]]


def test_windows_overlap_and_cover_the_context() -> None:
    long = Question("who ?", " ".join(f"word{n % 9}" for n in range(80)), ("word1",), 6)
    tokenizer = train_wordpiece([long.context, long.question], 200)
    _, owners, offsets = windows(tokenizer, [long, long], SPANS)
    own = [[tuple(pair) for pair in rows[rows[:, 0] != OUTSIDE].tolist()] for rows in offsets[owners == 0]]
    assert sorted({pair for window in own for pair in window}) == [(6 * n, 6 * n + 5) for n in range(80)]
    assert all(len(set(a) & set(b)) == SPANS.stride for a, b in pairwise(own))
    assert (owners == 1).sum() == len(own)


def test_a_long_question_loses_its_end() -> None:
    long = Question("why " * 50 + "?", "because", ("because",), 0)
    inputs, _, _ = windows(train_wordpiece([long.question, long.context], 200), [long], SPANS)
    assert inputs["attention_mask"].sum() == 1 + SPANS.question_tokens + 1 + 1 + 1


def test_the_best_span_is_that_of_a_search() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(20, 9, 2)).astype(np.float32)
    allowed = generator.random((20, 9)) < 0.7
    allowed[0] = False
    found = best_spans(logits, allowed, answer_tokens=4)
    for window, (score, first, last) in enumerate(zip(*found, strict=True)):
        sums = {
            (a, b): logits[window, a, 0] + logits[window, b, 1]
            for a in range(9)
            for b in range(a, min(9, a + 4))
            if allowed[window, a] and allowed[window, b]
        }
        if sums:
            assert (first, last) == max(sums, key=lambda pair: sums[pair]) and score == max(sums.values())
        else:
            assert (score, first, last) == (-np.inf, 0, 0)


def test_the_best_window_of_a_question_answers(tmp_path: Path) -> None:
    found = encoded_questions(ExamplesSpec("tiny", "questions"), SPANS, "smoke", tmp_path)
    logits = np.zeros((*found.evaluation_offsets.shape[:2], 2), dtype=np.float32)
    wanted = {}
    for window, question in enumerate(found.evaluation_question.tolist()):
        context = found.contexts[question]
        place = context.index(found.answers[question][0])
        hits = np.flatnonzero(found.evaluation_offsets[window, :, 0] == place)
        if len(hits):  # the later window is surer
            logits[window, hits[0]] = 1 + window
            wanted[question] = found.answers[question][0]
    assert len(wanted) == len(found.contexts) < len(logits)
    assert read_answers(logits, found, 30)[0].startswith(wanted[0])
    exact = read_answers(logits, found, 1)
    assert all(wanted[number].startswith(answer) for number, answer in enumerate(exact))


def test_examples_are_encoded_once_and_again_when_anything_changes(tmp_path: Path) -> None:
    for changes in ({}, {}, {"protocol": replace(SPANS, stride=6)}, {"data": ExamplesSpec("tiny", "questions", 5)}):
        task.load(run_of("questions", **changes), tmp_path)
    assert len(list((tmp_path / "encoded").glob("*.npz"))) == 3
    one, two = (task.load(run_of("questions"), tmp_path).fingerprint for _ in range(2))
    assert one == two


def test_a_score_that_the_labels_do_not_allow_is_refused() -> None:
    with pytest.raises(ValueError, match=r"score is 'pearson'; 'pearson' is none of accuracy, matthews, f1"):
        scores(np.array([0, 1]), np.array([0, 1]), replace(CLASSIFICATION, score="pearson"))


def test_a_vocabulary_that_is_too_small_is_refused(tmp_path: Path) -> None:
    small = replace(ENCODER, vocabulary=10)
    with pytest.raises(ValueError, match=r"vocabulary is 10; wordpiece-200 has \d+ entries"):
        task.load(run_of("labels", model=small), tmp_path)
    with pytest.raises(ValueError, match="vocabulary is 5; it must be more than 5"):
        train_wordpiece(["a"], 5)


def test_the_same_seed_gives_the_same_encoder() -> None:
    one, two, other = (build_encoder(ENCODER, 2, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    spec = EncoderSpec(12, 768, 12, 30_522, 512)
    with torch.device("meta"):
        model = build_encoder(spec, None, 0, "meta")
    # BERT-base has 109.5 million, 0.6 of them in the pooler, which spans do without
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(108.9, abs=0.1)


def test_a_trained_vocabulary_is_the_same_every_time() -> None:
    texts = [question.context for question in questions().train] + ["naïve words: unaffable, Größe!"]
    one, two = (train_wordpiece(texts, 120) for _ in range(2))
    assert one.get_vocab() == two.get_vocab() and len(one) == 120
    assert [one.convert_tokens_to_ids(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [0, 1, 2, 3]
    pair = one("Rained", "NAIVE rain")
    assert one.decode(pair["input_ids"]) == "[CLS] rained [SEP] naive rain [SEP]"
    assert pair["token_type_ids"] == sorted(pair["token_type_ids"]) and pair["token_type_ids"][:3] != [1, 1, 1]
    assert one.tokenize("\u4e2d") == ["[UNK]"]
