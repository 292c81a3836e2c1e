"""Responses as numbers: what each adds to the sums that metrics are made of.

=====================  =========================================================================
perplexity_token       exp of the mean nats of a token of the reference
perplexity_word        the same for a word (NLTK's), so that models with other tokenizers compare
bleu_1 .. bleu_4       corpus BLEU of sacrebleu, up to n-grams of n, lowercase, 0 to 100
rouge_l                mean ROUGE-L F1 of rouge_score, 0 to 100
distinct_1 .. _3       distinct n-grams of words by all n-grams of the responses, in percent
words                  mean words of a response
repetition             word trigrams that stood in the response before, in percent of all
repeated_responses     responses that the model gave elsewhere too, in percent
flagged, flag_NAME     responses with a safety flag (``safety.py``), in percent
=====================  =========================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from augesc_builder.dialog.examples import Pair
from augesc_builder.dialog.model import Likelihood
from augesc_builder.errors import MissingExtraError, install_extra
from augesc_builder.metrics.intervals import Metric, Numbers
from augesc_builder.text.prompts import Message
from augesc_builder.text.words import tokenize

ORDERS = (1, 2, 3, 4)
FLAGS = (
    *("crisis", "abuse", "sexual_violence", "eating_disorder"),
    *("harmful_agreement", "medical_advice", "personal_data"),
)
"""The flags of ``safety.py`` that a supporter can raise."""

_LIKELIHOOD = ("nats", "tokens", "reference_words")
_TEXT = (
    *("responses", "rouge_l", "words", "trigrams", "repeated_trigrams", "repeated"),
    *("flagged", *(f"flag_{name}" for name in FLAGS)),
    *(f"correct_{n}" for n in ORDERS),
    *(f"total_{n}" for n in ORDERS),
    *("length", "reference_length"),
)
COLUMNS = (*_LIKELIHOOD, *_TEXT)
_AT = {name: i for i, name in enumerate(COLUMNS)}


def likelihood_numbers(likelihoods: Sequence[Likelihood]) -> Numbers:
    """Return what each reference adds: (N, columns)."""
    numbers = np.zeros((len(likelihoods), len(COLUMNS)))
    for row, found in zip(numbers, likelihoods, strict=True):
        row[:3] = found.nats, found.n_tokens, found.n_words
    return numbers


def text_numbers(pairs: Sequence[Pair], responses: Sequence[str]) -> Numbers:
    """Return what each response adds: (N, columns).

    Raises :class:`~augesc_builder.errors.MissingExtraError` without sacrebleu and rouge-score.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise MissingExtraError(
            f"the metrics of responses need sacrebleu and rouge-score: {install_extra('train')}"
        ) from None
    from augesc_builder.text.safety import LexiconScanner

    bleu, rouge = BLEU(lowercase=True, effective_order=True), RougeScorer(["rougeL"])
    scanner = LexiconScanner()
    said = Counter(responses)
    numbers = np.zeros((len(pairs), len(COLUMNS)))
    for row, pair, response in zip(numbers, pairs, responses, strict=True):
        score = bleu.sentence_score(response, [pair.response])
        words = tokenize(response)
        trigrams = list(zip(words, words[1:], words[2:], strict=False))
        session: list[Message] = [*pair.history, {"role": "assistant", "content": response}]
        flags = {f.flag for f in scanner.scan(session) if f.utterance == len(session) - 1}
        values = {
            "responses": 1,
            "rouge_l": rouge.score(pair.response, response)["rougeL"].fmeasure,
            "words": len(words),
            "trigrams": len(trigrams),
            "repeated_trigrams": len(trigrams) - len(set(trigrams)),
            "repeated": said[response] > 1,
            "flagged": bool(flags),
            **{f"flag_{name}": name in flags for name in FLAGS},
            **{f"correct_{n}": score.counts[n - 1] for n in ORDERS},
            **{f"total_{n}": score.totals[n - 1] for n in ORDERS},
            "length": score.sys_len,
            "reference_length": score.ref_len,
        }
        for name, value in values.items():
            row[_AT[name]] = value
    return numbers


def session_sums(numbers: Numbers, sessions: Sequence[str]) -> Numbers:
    """Return the sums of each session's rows, (sessions, columns), in the order that they come."""
    place = {name: i for i, name in enumerate(dict.fromkeys(sessions))}
    sums = np.zeros((len(place), numbers.shape[1]))
    np.add.at(sums, [place[name] for name in sessions], numbers)
    return sums


def _share(part: str, whole: str, factor: float = 1.0) -> Metric:
    def metric(sums: Numbers) -> Numbers:
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Numbers = factor * sums[:, _AT[part]] / sums[:, _AT[whole]]
        return found

    return metric


def _perplexity(whole: str) -> Metric:
    mean = _share("nats", whole)
    return lambda sums: np.exp(np.minimum(mean(sums), 700))


def _bleu(order: int) -> Metric:
    def metric(sums: Numbers) -> Numbers:
        from sacrebleu.metrics import BLEU

        found = np.full(len(sums), np.nan)
        for i, row in enumerate(sums.round().astype(int)):
            correct = [int(row[_AT[f"correct_{n}"]]) for n in ORDERS[:order]]
            total = [int(row[_AT[f"total_{n}"]]) for n in ORDERS[:order]]
            lengths = int(row[_AT["length"]]), int(row[_AT["reference_length"]])
            found[i] = BLEU.compute_bleu(
                correct, total, *lengths, smooth_method="exp", max_ngram_order=order
            ).score
        return found

    return metric


LIKELIHOOD_METRICS: dict[str, Metric] = {
    "perplexity_token": _perplexity("tokens"),
    "perplexity_word": _perplexity("reference_words"),
}
TEXT_METRICS: dict[str, Metric] = {
    **{f"bleu_{n}": _bleu(n) for n in ORDERS},
    "rouge_l": _share("rouge_l", "responses", 100),
    "words": _share("words", "responses"),
    "repetition": _share("repeated_trigrams", "trigrams", 100),
    "repeated_responses": _share("repeated", "responses", 100),
    "flagged": _share("flagged", "responses", 100),
    **{f"flag_{name}": _share(f"flag_{name}", "responses", 100) for name in FLAGS},
}
