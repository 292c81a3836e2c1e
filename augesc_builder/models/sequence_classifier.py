"""Classifiers of texts and of pairs of texts, by ``transformers``' sequence classification.

A pair is read as the model's own tokenizer joins two texts. Tokenizers of causal models often join
them with nothing between: those get a separator, which is saved with them, so that whoever calls
``tokenizer(text, text_pair)`` gives the model what it was trained on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from augesc_builder.errors import CheckpointError, TrainingError
from augesc_builder.models import pretrained
from augesc_builder.models.causal_lm import brief, check_folder, quiet_bars
from augesc_builder.models.dialog import load_tokenizer, position_limit
from augesc_builder.readers.hub import resolve_model

CONTEXT_TURNS = 3
"""Utterances that are read before a turn, where a classifier's config does not say how many."""

_KIND = "ForSequenceClassification"
_NOT_A_LIMIT = 1_000_000
"""``model_max_length`` of tokenizers that know none is larger."""

_USUAL_LENGTH = 512
"""Tokens of an input at most, where neither model nor tokenizer says how many there may be."""

Texts = tuple[str, str | None]
"""A text, or a pair of texts."""


class SequenceClassifier:
    """A trained classifier on its device; ``labels`` are in the order of its numbers.

    ``name`` is a folder, or a name on the Hub; ``commit`` what that stood for, ``None`` for a
    folder. Raises :class:`~augesc_builder.errors.DownloadError` where the Hub does not have it, and
    :class:`~augesc_builder.errors.CheckpointError` where it cannot be loaded or is none.
    """

    def __init__(self, name: str, revision: str | None = None, key: str = "model") -> None:
        check_folder(name)
        self.name = name
        self.commit = None if Path(name).is_dir() else resolve_model(name, revision, key)
        self.model, self.tokenizer = _load(name, self.commit)
        named = self.model.config.id2label
        self.labels = tuple(str(named[i]) for i in range(len(named)))
        self.max_tokens = max_tokens(self.model, self.tokenizer, None)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model.to(self._device).eval()

    @property
    def history_turns(self) -> int | None:
        """Return how many utterances it reads before a turn; ``None``: all.

        A classifier of ours says so in its config. Of others it is
        :data:`CONTEXT_TURNS`.
        """
        found = getattr(self.model.config, "history_turns", CONTEXT_TURNS)
        return found if found is None or (type(found) is int and found > 0) else CONTEXT_TURNS

    @torch.inference_mode()
    def probabilities(
        self,
        texts: Sequence[Texts],
        batch_size: int = 32,
        on_done: Callable[[int], None] = lambda _: None,
    ) -> NDArray[np.float64]:
        """Return the probability of each label, (N, labels), of texts of any length.

        Those of about the same length go together; what is too long loses its beginning.
        """
        inputs = [encode(self.tokenizer, *each, self.max_tokens) for each in texts]
        order = sorted(range(len(inputs)), key=lambda i: -len(inputs[i]["input_ids"]))
        found = np.zeros((len(inputs), len(self.labels)))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = padded(self.tokenizer, [inputs[i] for i in rows])
            logits = self.model(**{key: value.to(self._device) for key, value in batch.items()})
            found[rows] = torch.softmax(logits.logits.double(), -1).cpu().numpy()
            on_done(len(rows))
        return found


def is_classifier(name: str | Path, revision: str | None = None) -> bool:
    """Whether a model's config says that it classifies texts; of one without a config it is not."""
    try:
        return _is_of_classifier(pretrained.load_config(name, revision))
    except Exception:  # whoever loads it tells what is wrong
        return False


def _is_of_classifier(config: Any) -> bool:
    return any(str(kind).endswith(_KIND) for kind in config.architectures or ())


def load_to_train(
    name: str, revision: str | None, tokenizer: str | None, labels: Sequence[str], seed: int
) -> tuple[Any, Any]:
    """Load any model, and its tokenizer, to train it as a classifier of ``labels``.

    A classifier of just these labels is trained further; of any other model the body is taken, and
    a new head, of random weights by ``seed``.

    Raises :class:`~augesc_builder.errors.CheckpointError` where one of them cannot be loaded, or
    does not fit.
    """
    check_folder(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, tokens = _load(name, revision, tokenizer, labels)
    if tokens.pad_token is None:
        tokens.pad_token = tokens.eos_token
    if tokens.pad_token is None:
        raise CheckpointError(
            f"{name}: its tokenizer has neither a pad token nor one that ends texts; set pad_token "
            f"in its tokenizer_config.json"
        )
    model.config.pad_token_id = tokens.pad_token_id
    tokens.padding_side, tokens.truncation_side = "right", "left"
    _separate_pairs(tokens)
    return model, tokens


def _load(
    name: str, revision: str | None, tokenizer: str | None = None, labels: Sequence[str] = ()
) -> tuple[Any, Any]:
    """Load a classifier as it is, or with a head for ``labels``."""
    try:
        with quiet_bars() if Path(name).is_dir() else contextlib.nullcontext(), _quiet():
            config = pretrained.load_config(name, revision)
            further = _is_trained(config, labels)
            if not further:
                config.id2label = dict(enumerate(labels))
                config.label2id = {label: i for i, label in enumerate(labels)}
            # On processors the gradient of fused attention takes longer than all matrices together.
            plain = (
                {} if torch.cuda.is_available() or not labels else {"attn_implementation": "eager"}
            )
            model, found = pretrained.load_pretrained(
                AutoModelForSequenceClassification,
                name,
                revision,
                config=config,
                **plain,
                dtype=torch.float32,
                ignore_mismatched_sizes=not further,
                output_loading_info=True,
            )
            _check_body(model, found, is_whole=further)
    except Exception as error:
        raise CheckpointError(
            f"{name}: cannot be loaded as a classifier: {brief(error)}"
        ) from error
    tokens = load_tokenizer(tokenizer or name, None if tokenizer else revision)
    if len(tokens) > (n := model.get_input_embeddings().num_embeddings):
        raise CheckpointError(
            f"{name}: the tokenizer has {len(tokens)} tokens and the model {n} embeddings; they do "
            f"not belong together"
        )
    return model, tokens


def _is_trained(config: Any, labels: Sequence[str]) -> bool:
    """Whether a model has a head already: for ``labels``, or where none are given for any.

    Raises ``ValueError`` for the latter where it has none.
    """
    if labels:
        return _is_of_classifier(config) and set(labels) == set(config.label2id)
    if not _is_of_classifier(config):
        raise ValueError(f"it is none, of transformers' kinds ...{_KIND}")
    return True


def _check_body(model: Any, found: dict[str, Any], *, is_whole: bool) -> None:
    """Refuse weights that lack more than a head. Raises ``ValueError``."""
    body = f"{model.base_model_prefix}."
    missing = {str(key) for key in found["missing_keys"]}
    missing |= {str(each[0]) for each in found.get("mismatched_keys", ())}
    if not is_whole:  # models that were no classifiers have no head, and often no pooler
        missing = {key for key in missing if key.startswith(body) and "pooler" not in key}
    if missing:
        raise ValueError(f"it lacks the weights {min(missing)}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from telling of each new head, which is what is asked for here."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _separate_pairs(tokenizer: Any) -> None:
    """Let a tokenizer that joins two texts with nothing between them put a separator there."""
    if not tokenizer.is_fast or tokenizer.num_special_tokens_to_add(pair=True):
        return
    token = tokenizer.sep_token or tokenizer.eos_token or tokenizer.pad_token
    number = tokenizer.convert_tokens_to_ids(token)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A", pair=f"$A {token} $B:1", special_tokens=[(token, number)]
    )


def max_tokens(model: Any, tokenizer: Any, wanted: int | None) -> int:
    """Return how many tokens an input may have: what is wanted, or all that the model can read.

    Raises :class:`~augesc_builder.errors.TrainingError` where more are wanted than it can.
    """
    limits = [position_limit(model, tokenizer), int(tokenizer.model_max_length)]
    limit = min((each for each in limits if each and each < _NOT_A_LIMIT), default=_USUAL_LENGTH)
    if wanted is not None and wanted > limit:
        raise TrainingError(
            f"examples.max_source_tokens is {wanted}, but the model has positions for {limit}; "
            f"lower it"
        )
    return wanted or limit


def encode(tokenizer: Any, text: str, text_pair: str | None, longest: int) -> dict[str, list[int]]:
    """Return a text or a pair as a model's inputs; the longer of the two loses its beginning."""
    given = dict(tokenizer(text, text_pair, truncation=True, max_length=longest))
    if not given["input_ids"]:  # of nothing at all
        given = {key: [0] for key in given} | {"input_ids": [tokenizer.pad_token_id]}
    return given | {"attention_mask": [1] * len(given["input_ids"])}


def padded(tokenizer: Any, inputs: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Return inputs as one batch, (B, T) each, padded at the right."""
    width = max(len(each["input_ids"]) for each in inputs)
    fill = {"input_ids": tokenizer.pad_token_id}
    return {
        key: torch.tensor(
            [[*each[key], *[fill.get(key, 0)] * (width - len(each[key]))] for each in inputs]
        )
        for key in inputs[0]
    }


def freeze_below(model: Any, n_layers: int) -> None:
    """Leave the upper ``n_layers`` of a model to be trained, and what follows them.

    Frozen is all that is made before them: embeddings and lower layers. No gradient is computed
    there, so that a step takes less time.

    Raises :class:`~augesc_builder.errors.TrainingError` where it has no such layers.
    """
    n = int(getattr(model.config.get_text_config(), "num_hidden_layers", 0))
    stacks = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == n]
    if not stacks or n_layers > n:
        raise TrainingError(
            f"model.trainable_layers is {n_layers}, and the model has {n if stacks else 'no'} "
            f"layers; give a smaller number, or null for all of it"
        )
    first = next(stacks[-1][n - n_layers].parameters())
    for parameter in model.parameters():  # in the order in which they are made
        if parameter is first:
            break
        parameter.requires_grad = False
