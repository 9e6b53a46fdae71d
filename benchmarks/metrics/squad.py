"""Metrics of answers in words: exact match and F1 of SQuAD v1.1, after its official normalisation.

Lower case; no punctuation; no articles; single spaces. Of several accepted answers the best one counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from results.record import Metric

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """An answer as it is compared."""
    return " ".join(_ARTICLE.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, accepted: str) -> float:
    """1 where both are the same after normalisation, else 0."""
    return float(normalised(answer) == normalised(accepted))


def word_f1(answer: str, accepted: str) -> float:
    """Harmonic mean of the shares of the words of either side that the other has, as often as it has them."""
    one, other = normalised(answer).split(), normalised(accepted).split()
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other)) if common else 0.0


def answer_metrics(answers: Sequence[str], accepted: Sequence[Sequence[str]], prefix: str = "") -> dict[str, Metric]:
    """Exact match and F1 in percent, means over questions.

    Args:
        answers: one per question.
        accepted: one or more per question.
        prefix: of the metrics' names.

    Raises:
        ValueError: there are no questions, or not equally many answers.
    """
    if not answers or len(answers) != len(accepted):
        raise ValueError(
            f"there are {len(answers)} answers to {len(accepted)} questions; give one each, and one at least"
        )

    def mean(score: Callable[[str, str], float]) -> Metric:
        best = [_best(score, answer, right) for answer, right in zip(answers, accepted, strict=True)]
        return Metric(100 * sum(best) / len(best), "%", True, n=len(best))

    return {f"{prefix}exact_match": mean(exact_match), f"{prefix}f1": mean(word_f1)}


def _best(score: Callable[[str, str], float], answer: str, accepted: Iterable[str]) -> float:
    return max(score(answer, one) for one in accepted)
