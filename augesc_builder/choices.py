"""What a recipe has beside the paper: where it differs, and where it chooses for itself.

What the paper says stands in :mod:`augesc_builder.paper`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from augesc_builder.paper import PROMPTED, SETTINGS, stated, value_of

_FROM = "queries.sources.*.source"


def _always(_: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Choice:
    """What a build does and the paper does not have, or leaves open.

    - ``text``: says it; ``{}`` stands for the value of the key
    - ``key``: the key that holds it; ``None`` for what no key switches off
    - ``unused``: values of the key by which a recipe does without it
    - ``when``: whether a recipe with these settings comes to it at all
    """

    text: str
    key: str | None = None
    unused: tuple[Any, ...] = (None,)
    when: Callable[[Mapping[str, Any]], bool] = _always

    def of(self, settings: Mapping[str, Any]) -> str | None:
        """Return what it is in a recipe, in Markdown; ``None`` where the recipe does without."""
        value = None if self.key is None else value_of(settings, self.key)
        if not self.when(settings) or (self.key is not None and value in self.unused):
            return None
        return self.text if self.key is None else f"{self.text.format(_code(value))} (`{self.key}`)"


def _prompted(settings: Mapping[str, Any]) -> bool:
    return bool(value_of(settings, "generate.backend.type") == "openai_api")


def _with_ed(settings: Mapping[str, Any]) -> bool:
    return "empathetic_dialogues" in value_of(settings, _FROM)


def _with_reddit(settings: Mapping[str, Any]) -> bool:
    return "reddit" in value_of(settings, _FROM)


def _classified(settings: Mapping[str, Any]) -> bool:
    return _with_reddit(settings) and bool(value_of(settings, "queries.classifiers.enabled"))


def _grounded(settings: Mapping[str, Any]) -> bool:
    return bool(value_of(settings, "prompt.background"))


def _self_chat(settings: Mapping[str, Any]) -> bool:
    return bool(value_of(settings, "generate.backend.type") == "self_chat")


def _finetuned(settings: Mapping[str, Any]) -> bool:
    return "finetune" in settings


def _on_esconv(settings: Mapping[str, Any]) -> bool:
    return bool(value_of(settings, "finetune.sessions") == "esconv")


CHOICES: tuple[Choice, ...] = (
    Choice("models and data are taken at the commits in the manifest; the paper names none"),
    Choice("every random choice follows from the seed {}", "seed"),
    Choice("the model begins with random weights, in the shape {}", "backbone.from_scratch"),
    Choice("the model's weights are those of the GGUF file {}", "backbone.gguf_file"),
    Choice(
        "fine-tuning sessions are drawn from ESConv's train split; the paper names no split",
        when=_on_esconv,
    ),
    Choice(
        "what a supporter says before the seeker's first words is left out of fine-tuning too; "
        "the paper says so of its Table 2",
        when=_finetuned,
    ),
    Choice(
        "a background stands before every conversation: in fine-tuning the situation that a "
        "session's seeker wrote beforehand, and at generation what the model first continues the "
        "query into",
        "prompt.background",
        unused=(None, False),
    ),
    Choice(
        "how many tokens a background has at most, and how often one that cannot be built on is "
        "drawn: {}",
        "generate.background",
        when=_grounded,
    ),
    Choice("a background begins with a persona that is drawn from {}", "prompt.personas"),
    Choice(
        "the supporter's utterances begin with their strategies, which are taken out of the texts",
        "prompt.strategies",
        unused=(None, False),
    ),
    Choice("AdamW's weight decay is {}", "finetune.weight_decay"),
    Choice("gradients are clipped to the norm {}", "finetune.max_grad_norm"),
    Choice("fine-tuning computes in {}", "finetune.mixed_precision", unused=(None, "no", "auto")),
    Choice("fine-tuning holds the weights in {}", "finetune.weights_dtype"),
    Choice(
        "the emotions of EmpatheticDialogues that count as negative are {}; the paper lists none",
        "queries.negative_emotions",
        when=_with_ed,
    ),
    Choice("posts with personal data are no queries"),
    Choice("posts that repeat an earlier one are no queries"),
    Choice("posts much like an earlier one are no queries: {}", "queries.near_duplicates"),
    Choice(
        "posts with names of people or places, as {} finds them, are no queries",
        "queries.names_and_places",
    ),
    Choice("no source gives more than {} queries", "queries.max_per_source"),
    Choice("the list of subreddits is ours; the paper did not publish its own", when=_with_reddit),
    Choice(
        "the lists of keywords and of Reddit lingo are ours; the paper gives examples only",
        when=_with_reddit,
    ),
    Choice(
        "emotions that let a post stand although they are not negative: {}",
        "queries.classifiers.emotions.*.labels.ambiguous",
        when=_classified,
    ),
    Choice(
        "scores from which an emotion counts, where a classifier finds several at once: {}",
        "queries.classifiers.emotions.*.threshold",
        when=_classified,
    ),
    Choice(
        "of Detoxify's models it is {}; the paper does not say which",
        "queries.classifiers.toxicity.model",
        when=_classified,
    ),
    Choice(
        "score from which a post is toxic: {}",
        "queries.classifiers.toxicity.threshold",
        when=_classified,
    ),
    Choice(
        "conversations of each query: {}; the paper gives sums only", "generate.samples_per_query"
    ),
    Choice("turns that measures find bad are drawn again: {}", "generate.resample"),
    Choice("generation ends as soon as so many sessions are kept: {}", "generate.keep"),
    Choice("candidates for that are at most {}", "generate.keep_budget"),
    Choice("of the sessions that met the requirements some are chosen: {}", "select"),
    Choice("the texts come from the backend {}", "generate.backend.type", unused=("local",)),
    Choice("the seeker's dialog model is {}", "generate.backend.seeker.model"),
    Choice("the supporter's dialog model is {}", "generate.backend.supporter.model"),
    Choice(
        "the words of an utterance that end a conversation are {}, in any case and each as a word "
        'of its own; the paper says: the word "bye"',
        "generate.backend.end_words",
    ),
    Choice("utterances have at most {} tokens", "generate.backend.max_utterance_tokens"),
    Choice(
        "the repetition penalty and the limit of tokens; section 6.1 gives none",
        when=_self_chat,
    ),
    *(
        Choice(
            f"{what} is {{}}; section 6.1 names none",
            f"generate.{key}",
            unused=(None, 0, False),
            when=_self_chat,
        )
        for what, key in (("top-k", "top_k"), ("min-p", "min_p"), ("greedy decoding", "greedy"))
    ),
    Choice(
        "of a conversation that is too long for a dialog model the query is kept, and the oldest "
        "utterances behind it are left out; an utterance has a token at least, and one without "
        "words ends it",
        when=_self_chat,
    ),
    *(
        Choice(f"{what} is {{}}; the paper gives none for GPT-3", f"generate.{key}", when=_prompted)
        for what, key in (("top-p", "top_p"), ("the temperature", "temperature"))
    ),
    Choice("an answer ends before any of {}", "generate.backend.stop", unused=(None, [])),
    Choice(
        "requests hold {} beyond OpenAI's protocol",
        "generate.backend.extra_body",
        unused=(None, {}),
    ),
    Choice(
        "the texts are sampled in {} batches, each text from a random stream of its own",
        "generate.backend.engine",
    ),
    Choice("the texts are made with weights of the type {}", "generate.backend.dtype"),
    Choice(
        "the matrices of the model are rounded to the type {}, with a scale for each output",
        "generate.backend.weights",
        unused=(None,),
    ),
    Choice(
        "the output layer is rounded to bfloat16 on CPU",
        "generate.backend.bfloat16_head",
        unused=(None, False),
    ),
    Choice("session length is counted by the tokenizer {}", "requirements.tokenizer"),
    Choice("role words are whole words in this very case"),
    Choice(
        "texts that are near duplicates of sessions that models are tested on, or share a long "
        "span with one, are rejected: {}",
        "requirements.test_overlap",
        unused=(None,),
    ),
    Choice("sessions are scanned for safety flags, and none is dropped for them"),
    Choice("a classifier raises safety flags too: {}", "safety.classifier.model"),
    Choice(
        "kept sessions are measured beyond their form, and none is dropped for it: {}",
        "quality.measures",
        unused=(None, []),
    ),
    Choice(
        "figure 3 takes the mean of the utterances behind the query; whether the paper's holds the "
        "query is not said",
        "statistics.count_query",
        unused=(True,),
    ),
    Choice(
        "figure 3 takes the mean of all utterances, the query too; whether the paper's does is not "
        "said",
        "statistics.count_query",
        unused=(None, False),
    ),
    Choice("sessions are parted into splits by their queries: {}", "card.splits"),
    Choice(
        "the prior of figure 4 is {}; the paper does not give its own, and its z-scores are not "
        "reproduced exactly",
        "statistics.prior",
    ),
)
"""What a build does beside the paper, in the order of its stages."""


def differences_from_paper(settings: Mapping[str, Any]) -> list[str]:
    """List all in which a recipe differs from the paper itself, in Markdown, a line each.

    ``settings`` are a recipe's plain values (``Recipe.settings()``); sections that its build never
    comes to may be left out. First what is other than the paper says, then what the paper does not
    have or leaves open (with requirements from outside the package). No recipe is without any.
    """
    found = []
    for key, papers in stated(settings).items():
        ours = value_of(settings, key)
        if _unordered(ours) != _unordered(papers.value):
            found.append(
                f"`{key}`: {_code(ours)}; the paper: {_code(papers.value)} ({papers.where})"
            )
    open_ones = [c for c in CHOICES if c.key not in PROMPTED or not _prompted(settings)]
    choices = [said for choice in open_ones if (said := choice.of(settings)) is not None]
    choices += [
        f"the requirement {_code(name)}"
        for name in settings["requirements"]
        if f"requirements.{name}" not in SETTINGS and name not in {"tokenizer", "test_overlap"}
    ]
    return [*found, *(f"ours: {said}" for said in choices)]


def _unordered(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value


def _code(value: Any) -> str:
    """Write a value as a code span in Markdown, on one line."""
    is_plain = isinstance(value, str) and value.isprintable()
    text = value if is_plain else json.dumps(value, ensure_ascii=False)
    return f"`` {text} ``" if "`" in text else f"`{text}`"
