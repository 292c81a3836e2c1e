"""The tables that stages hand to each other, one record type each.

Features are written with ``[feature]`` for lists: ``datasets`` 3.x and 4 or newer both read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
from datasets import Features, Value

MESSAGES = [{"role": Value("string"), "content": Value("string")}]

SAFETY_FLAGS = [
    {
        "flag": Value("string"),
        "utterance": Value("int32"),
        "start": Value("int32"),
        "end": Value("int32"),
    }
]
"""What :mod:`~augesc_builder.text.safety` found: which flag, in which of ``messages`` (from 0; -1
is the background), and the span of its characters."""

QUERIES = Features(
    {
        "query_id": Value("string"),
        "source": Value("string"),
        "text": Value("string"),
        "n_words": Value("int32"),
        "emotion": Value("string"),
        "subreddit": Value("string"),
    }
)
"""A row is a trigger: the first thing a help-seeker says (section 4.2).

- ``query_id``: 16 hex digits, a hash of source and text
- ``source``: the corpus it comes from (``sample``, ``empathetic_dialogues``, ...)
- ``text``: the post, white space collapsed
- ``n_words``: its length in words (:mod:`augesc_builder.text.words`)
- ``emotion``, ``subreddit``: what the source says of it, or null
"""

REJECTED_POSTS = Features({**QUERIES, "reasons": [Value("string")]})
"""A row is a post that is no trigger; ``reasons`` names the rules that rejected it.

``n_words`` is null where a cheaper rule rejected the post before its words were counted.
"""

GENERATIONS = Features(
    {
        "query_id": Value("string"),
        "sample": Value("int32"),
        "source": Value("string"),
        "query": Value("string"),
        "text": Value("string"),
        "n_prompt_tokens": Value("int32"),
        "n_tokens": Value("int32"),
        "finish_reason": Value("string"),
        "seed": Value("int64"),
        "background": Value("string"),
        "background_faults": [Value("string")],
        "n_background_tokens": Value("int32"),
        "persona": Value("string"),
        "strategies": [Value("string")],
        "emotion": Value("string"),
        "subreddit": Value("string"),
        "resampled": [Value("string")],
        "n_resampled_tokens": Value("int32"),
    }
)
"""A row is one raw continuation of one prompt (section 4.1, Inference).

- ``query_id``, ``source``, ``query``: the trigger, as in the queries table
- ``sample``: the number of the sample for this query, from 0
- ``text``: what the model wrote after the prompt's ``AI:``, nothing stripped but the tags of
  strategies
- ``n_prompt_tokens``: tokens of the conversation's prompt (instruction, background, query, ``AI:``)
- ``n_tokens``: tokens of ``text``; the end-of-sequence token is not counted; both counts are null
  where no tokenizer of ours wrote it
- ``finish_reason``: ``eos``, ``length`` (the limit was reached), ``prompt_too_long``, or
  ``not_finite`` (non-finite logits; the text is empty); of two dialog models also ``empty`` (one
  said no word); of an endpoint also ``content_filter``, ``refused``, ``empty``, ``wrong_format``
  (no speaker in front), ``failed`` (never answered; the text is empty) and ``other``
- ``seed``: the seed of the random streams
- ``background``: what the model wrote of the seeker's story before the conversation, which
  continues it; null where it wrote none, or none that was fit
- ``background_faults``: why each draw of a background that was not kept was not, in their order:
  ``empty``, ``unfinished``, ``role_word`` (such as "AI:" in it), ``copy`` (no word that is not in
  the query) or ``contradiction`` (with the query); null without prompt.background
- ``n_background_tokens``: tokens that all these draws took, beside ``n_tokens``; null as above
- ``persona``: the persona that was drawn for the row, with which each draw of its background
  begins; null without ``prompt.personas``
- ``strategies``: the strategy that the model named before an utterance, one a message (the query
  is the first) and null where there is none; null without prompt.strategies, and where the text
  is no conversation
- ``emotion``, ``subreddit``: of the trigger, as in the queries table
- ``resampled``: for each time that the text was cut before a bad turn and went on from there, what
  counts that turn, as in ``generate.resample.by``, or ``no_conversation`` (the draw before had a
  line without a speaker); null without generate.resample
- ``n_resampled_tokens``: tokens of all these draws that are not in ``text``; null as above
"""

FAILED = Features(
    {
        "query_id": Value("string"),
        "sample": Value("int32"),
        "source": Value("string"),
        "query": Value("string"),
        "error": Value("string"),
        "attempts": Value("int32"),
    }
)
"""A row is one that could not be made: each time it was made alone, what made it ended by it.

- ``query_id``, ``sample``, ``source``, ``query``: as in the generations table, which lacks the row
- ``error``: what it ended by the last time, in a line
- ``attempts``: times that it was made alone
"""

SESSIONS = Features(
    {
        "session_id": Value("string"),
        "source": Value("string"),
        "query_id": Value("string"),
        "messages": MESSAGES,
        "n_tokens": Value("int32"),
        "safety_flags": SAFETY_FLAGS,
        "background": Value("string"),
        "persona": Value("string"),
        "strategies": [Value("string")],
        "emotion": Value("string"),
        "subreddit": Value("string"),
    }
)
"""A row is one conversation.

- ``session_id``: unique in the table
- ``source``: the corpus of its query, or the corpus itself
- ``query_id``: the query that triggered it, or null
- ``messages``: utterances in order; ``user`` is the seeker, ``assistant`` the supporter
- ``n_tokens``: tokens of prompt and continuation together, or null where no model wrote it
- ``safety_flags``: what the safety pass found, or null where it did not run
- ``background``: the seeker's story that the conversation was generated from, or null
- ``persona``: the persona that was drawn for it, or null
- ``strategies``: the supporter's strategy of each message, null where there is none, or null
- ``emotion``, ``subreddit``: what the source of its trigger says of that, or null; of a session
  that people wrote, ``emotion`` is the seeker's
"""

SURVEY_SCORE = {
    "seeker": {
        name: Value("int32")
        for name in (
            *("initial_emotion_intensity", "empathy", "relevance"),
            "final_emotion_intensity",
        )
    },
    "supporter": {"relevance": Value("int32")},
}
"""What both said of a session of ESConv when it was over: digits, nearly all from 1 to 5."""

ESCONV = Features(
    {
        **SESSIONS,
        "problem_type": Value("string"),
        "experience_type": Value("string"),
        "situation": Value("string"),
        "survey_score": SURVEY_SCORE,
    }
)
"""A row is a session of ESConv, with all its labels; each is null where the file has none.

- ``emotion``: ESConv's ``emotion_type``
- ``problem_type``: what the session is about, in lowercase
- ``experience_type``: whether the seeker has the trouble now, or had it before
- ``situation``: what the seeker wrote of it beforehand
- ``survey_score``: what both answered when it was over
"""

REJECTED = Features({**GENERATIONS, "violations": [Value("string")]})
"""A row is a generation that failed; ``violations`` names every requirement it failed."""

MEASURED = Features(
    {
        "query_id": Value("string"),
        "sample": Value("int32"),
        "source": Value("string"),
        "total_tokens": Value("int32"),
        "n_utterances": Value("int32"),
        "longest_run": Value("int32"),
        "utterance_ratio": Value("float64"),
        "n_role_words": Value("int32"),
        "seeker_words": [Value("int32")],
        "supporter_words": [Value("int32")],
        "seeker_mean_words": Value("float64"),
        "supporter_mean_words": Value("float64"),
    }
)
"""A row holds what was measured of one generation, in the order of the generations (section 4.3).

- ``query_id``, ``sample``, ``source``: whose numbers these are
- ``total_tokens``: tokens of prompt and continuation; null where nothing counted them
- ``n_utterances``: utterances, the query included; null, as all below, where the format fails
- ``longest_run``: the most utterances of one speaker in a row
- ``utterance_ratio``: utterances of who has more by those of who has fewer; null if that is 0
- ``n_role_words``: role words inside utterances
- ``seeker_words``, ``supporter_words``: the length of each utterance in words
- ``seeker_mean_words``, ``supporter_mean_words``: their means; null where there is no utterance
"""

QUALITY = Features(
    {
        "session_id": Value("string"),
        "corpus": Value("string"),
        "source": Value("string"),
        "n_utterances": Value("int32"),
        "numbers": [
            {"measure": Value("string"), "name": Value("string"), "value": Value("float64")}
        ],
        "utterances": [
            {
                "measure": Value("string"),
                "scores": [Value("float64")],
                "labels": [Value("string")],
            }
        ],
        "findings": [
            {
                "measure": Value("string"),
                "kind": Value("string"),
                "role": Value("string"),
                "utterance": Value("int32"),
                "start": Value("int32"),
                "end": Value("int32"),
                "score": Value("float64"),
                "reason": Value("string"),
                "other": Value("int32"),
                "other_start": Value("int32"),
                "other_end": Value("int32"),
            }
        ],
    }
)
"""A row is what measures of quality say of one session (:mod:`augesc_builder.metrics.scored`).

- ``session_id``, ``source``: as in the sessions table
- ``corpus``: the set of sessions it is in, as it was named
- ``n_utterances``: utterances of the session
- ``numbers``: the session's numbers; ``value`` is null where a measure says nothing
- ``utterances``: of each measure a score an utterance (null where it says nothing), and a class
  an utterance, or null where it classifies none
- ``findings``: what it points at: characters ``start`` to ``end`` of an ``utterance`` (from 0) that
  a ``role`` said, how sure it is (0 to 1), why in words, and what it is held against, or null
"""

SESSIONS_AND_REJECTED = Features(
    {**SESSIONS, "text": Value("string"), "violations": [Value("string")]}
)
"""Sessions and rejected texts in one form, for comparing them.

``messages`` of a rejected text are null where it is no conversation; ``text``, the raw
continuation, is null for sessions, whose ``violations`` are empty.
"""

NOT_SELECTED = Features(
    {
        **SESSIONS,
        "score": Value("float64"),
        "reason": Value("string"),
        "chosen": Value("string"),
        "chosen_score": Value("float64"),
    }
)
"""A row is a session that met the requirements, and others were chosen in its place.

- ``score``: the number that the choice went by; null where the measure says nothing
- ``reason``: ``score`` (others of its query are better) or ``beyond_keep`` (enough are kept)
- ``chosen``, ``chosen_score``: the ``session_id`` of the best one of its query, and its number
"""

SIMULATED = Features(
    {
        **SESSIONS,
        "card_id": Value("string"),
        "problem_type": Value("string"),
        "emotion": Value("string"),
        "system": Value("string"),
        "seeker": Value("string"),
        "ended": Value("string"),
        "simulated": Value("bool"),
    }
)
"""A row is a conversation of a model that plays a seeker with a system (``augesc simulate``).

- ``card_id``, ``problem_type``, ``emotion``: of the role card that was played; the latter two may
  be null
- ``system``: the system's name, ``assistant`` in ``messages``
- ``seeker``: the name of the model that is ``user`` in ``messages``
- ``ended``: ``turns`` (all were taken), ``seeker`` (who said goodbye), ``silent_seeker`` or
  ``silent_system`` (who said nothing more)
- ``simulated``: true: no person took part
"""

TABLES = {
    "queries": QUERIES,
    "generations": GENERATIONS,
    "sessions": SESSIONS,
    "rejected": REJECTED,
    "failed": FAILED,
    "rejected_posts": REJECTED_POSTS,
    "measured": MEASURED,
    "quality": QUALITY,
}


def to_table(rows: Iterable[Mapping[str, Any]], features: Features) -> pa.Table:
    """Make an Arrow table of ``rows``; columns that a row lacks are null.

    The schema carries no ``huggingface`` metadata: written by a new ``datasets`` it names feature
    types that older versions cannot read, and all of them infer these features without it.
    """
    return pa.Table.from_pylist([dict(row) for row in rows], schema=features.arrow_schema).cast(
        plain_schema(features)
    )


def plain_schema(features: Features) -> pa.Schema:
    """Return the Arrow schema of ``features`` without metadata."""
    return features.arrow_schema.remove_metadata()


def query_id(source: str, text: str) -> str:
    """Return the id of a query: the same text from the same source always has the same."""
    return hashlib.blake2b(f"{source}\n{text}".encode(), digest_size=8).hexdigest()
