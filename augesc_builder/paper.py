"""The paper itself (arXiv 2202.13047): its figures, its settings, and what it does not have.

A recipe is compared with what stands here, and not with ``recipes/paper.yaml``, which makes choices
of its own where the paper is silent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_REQUIREMENTS = (
    *("format", "session_length", "total_utterances", "continuous_utterances"),
    *("balanced_utterances", "role_words"),
    *("seeker_utterance_length", "supporter_utterance_length"),
)

TABLE_1: dict[str, dict[str, float]] = {
    model: dict(zip((*_REQUIREMENTS, "retention"), shares, strict=True))
    for model, shares in {
        "GPT-3 (ED)": (24.8, 0.0, 8.9, 0.0, 0.2, 11.2, 36.7, 37.8, 17.2),
        "GPT-J (ED)": (0.3, 3.1, 17.8, 3.9, 5.2, 2.4, 25.3, 27.4, 49.1),
        "GPT-J (Reddit)": (0.7, 5.6, 18.8, 4.8, 5.3, 2.6, 22.7, 26.4, 48.7),
    }.items()
}
"""Table 1: per cent of texts that violate each requirement, and final retention."""

TABLE_2: dict[str, tuple[str, ...]] = {
    "ESConv": ("1.3K", "543.7", "15K", "20K", "15.4", "16.8", "11K", "18K", "13.6", "21.0", "11K"),
    "AugESC ED": (
        *("53K", "528.4", "55K"),
        *("656K", "12.4", "19.8", "37K"),
        *("657K", "12.5", "22.7", "44K"),
    ),
    "AugESC Reddit": (
        *("49K", "599.0", "60K"),
        *("586K", "11.9", "25.1", "42K"),
        *("590K", "11.9", "25.2", "41K"),
    ),
    "AugESC": ("102K", "-", "84K", *("-",) * 8),
}
"""Table 2, rounded as printed: the rows of ``pipeline.statistics.report.STATISTICS``, in order.

Of all AugESC, the text at hand gives sessions and unique words alone (sections 5.1 and 5.2).
"""

QUERIES: dict[str, tuple[int, float]] = {
    "empathetic_dialogues": (8_950, 19.9),
    "reddit": (24_766, 39.1),
}
"""Section 4.2: queries of each source, and their mean length in words."""

FIGURE_4: dict[str, dict[str, int]] = {
    "seeker": {
        **{"covid": 8, "pandemic": 7, "vaccine": 3, "mturk": 3, "covid-19": 3, "zoom": 3},
        **{"virus": 2, "lockdown": 2, "christmas": 2, "holidays": 2},
    },
    "supporter": {
        **{"pandemic": 7, "covid": 6, "vaccine": 3, "zoom": 3, "christmas": 3, "mturk": 3},
        **{"survey": 3, "press": 3, "lol": 2, "merry": 2},
    },
}
"""Figure 4: ESConv's words by role, each with its z against 10,000 sessions of ED and of Reddit."""


@dataclass(frozen=True)
class Stated:
    """What the paper says of a key of a recipe, and where it says so."""

    value: Any
    where: str


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


_4_1, _4_2, _4_3, _A = "section 4.1", "section 4.2", "section 4.3", "appendix A"

SETTINGS: dict[str, Stated] = {
    "prompt.instruction": Stated(
        "The following is a conversation with an AI assistant. The assistant is helpful, "
        "empathetic, clever, and very friendly. It can use various support skills to provide "
        "emotional support to human.",
        "figure 2",
    ),
    "prompt.form": Stated("paper", "figure 2"),
    "backbone.name": Stated("EleutherAI/gpt-j-6b", _4_1),
    "finetune.sessions": Stated("esconv", _4_1),
    "finetune.n_sessions": Stated(100, _4_1),
    "finetune.epochs": Stated(1, _4_1),
    "finetune.batch_size": Stated(2, _4_1),
    "finetune.learning_rate": Stated(6e-5, _4_1),
    "finetune.warmup_steps": Stated(5, _4_1),
    "finetune.max_tokens": Stated(1500, _4_1),
    "finetune.gradient_checkpointing": Stated(True, _4_1),
    "finetune.lora": Stated(None, _4_1),
    "queries.sources.*.source": Stated(["empathetic_dialogues", "reddit"], _4_2),
    "queries.n_words": Stated({"min": 10, "max": 60}, _4_2),
    "queries.classifiers.enabled": Stated(True, _A),
    "queries.classifiers.emotions.*.model": Stated(
        [
            "j-hartmann/emotion-english-roberta-base",
            "monologg/bert-base-cased-goemotions-original",
        ],
        _A,
    ),
    "queries.classifiers.toxicity.model": Stated("unitary/toxic-bert", _A),
    "generate.max_tokens": Stated(1500, _4_1),
    "generate.top_p": Stated(0.9, _4_1),
    "generate.temperature": Stated(0.9, _4_1),
    "generate.repetition_penalty": Stated(1.05, _4_1),
    "generate.top_k": Stated(None, _4_1),
    "generate.min_p": Stated(0, _4_1),
    "generate.greedy": Stated(False, _4_1),
    "requirements.session_length": Stated({"max": 1450}, _4_3),
    "requirements.total_utterances": Stated({"min": 10, "max": 50}, _4_3),
    "requirements.continuous_utterances": Stated({"max": 3}, _4_3),
    "requirements.balanced_utterances": Stated({"max_ratio": 2.5}, _4_3),
    "requirements.role_words": Stated({"words": ["Human", "AI"]}, _4_3),
    "requirements.seeker_utterance_length": Stated(
        {"mean": {"min": 7, "max": 50}, "short": 7, "max_short_share": 0.25, "max": 100}, _4_3
    ),
    "requirements.supporter_utterance_length": Stated(
        {"mean": {"min": 9, "max": 50}, "short": 9, "max_short_share": 0.25, "max": 100}, _4_3
    ),
    "statistics.query_sample": Stated(2_000, "figure 3"),
    "statistics.topic_sample": Stated(10_000, "figure 4"),
    "statistics.stop_words": Stated("keep", "section 5.3"),
}
"""What the paper says of the keys of a recipe; ``*`` stands for each entry of a list."""

PROMPTED: dict[str, Stated] = {
    "queries.sources.*.source": Stated(["empathetic_dialogues"], _4_3),
    "queries.max_per_source": Stated(2_000, _4_3),
    "generate.samples_per_query": Stated(1, _4_3),
    "generate.backend.model": Stated("davinci", _4_3),
    "generate.backend.mode": Stated("completions", _4_1),
    "generate.backend.examples": Stated(0, _4_1),
    "generate.backend.turns": Stated(None, _4_1),
    "generate.backend.max_new_tokens": Stated(400, "table 1"),
}
"""The same for GPT-3, which is prompted: in the place of the section ``generate``."""

_FROM = "queries.sources.*.source"


def stated(settings: Mapping[str, Any]) -> dict[str, Stated]:
    """Return what the paper says of the keys that a recipe comes to: of its GPT-J, or of GPT-3."""
    said = {key: found for key, found in SETTINGS.items() if key.partition(".")[0] in settings}
    if not _prompted(settings):
        return said
    ours = {key for key in said if key.startswith(("generate.", "queries.classifiers."))}
    return {key: found for key, found in said.items() if key not in ours} | PROMPTED


def _prompted(settings: Mapping[str, Any]) -> bool:
    return bool(value_of(settings, "generate.backend.type") == "openai_api")


def _with_ed(settings: Mapping[str, Any]) -> bool:
    return "empathetic_dialogues" in value_of(settings, _FROM)


def _with_reddit(settings: Mapping[str, Any]) -> bool:
    return "reddit" in value_of(settings, _FROM)


def _classified(settings: Mapping[str, Any]) -> bool:
    return _with_reddit(settings) and bool(value_of(settings, "queries.classifiers.enabled"))


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
    Choice("AdamW's weight decay is {}", "finetune.weight_decay"),
    Choice("gradients are clipped to the norm {}", "finetune.max_grad_norm"),
    Choice("fine-tuning computes in {}", "finetune.mixed_precision", unused=("no", "auto")),
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
    Choice("the texts come from the backend {}", "generate.backend.type", unused=("local",)),
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
        "the output layer is rounded to bfloat16 on CPU",
        "generate.backend.bfloat16_head",
        unused=(None, False),
    ),
    Choice("session length is counted by the tokenizer {}", "requirements.tokenizer"),
    Choice("role words are whole words in this very case"),
    Choice("sessions are scanned for safety flags, and none is dropped for them"),
    Choice("a classifier raises safety flags too: {}", "safety.classifier.model"),
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
    comes to may be left out. First what is other than the
    paper says (:data:`SETTINGS`), then what the paper does not have or leaves open
    (:data:`CHOICES`, and requirements from outside the package). No recipe is without any.
    """
    found = []
    known = stated(settings)
    for key, papers in known.items():
        ours = value_of(settings, key)
        if _unordered(ours) != _unordered(papers.value):
            found.append(
                f"`{key}`: {_code(ours)}; the paper: {_code(papers.value)} ({papers.where})"
            )
    choices = [
        said
        for choice in CHOICES
        if choice.key not in known and (said := choice.of(settings)) is not None
    ]
    choices += [
        f"the requirement {_code(name)}"
        for name in settings["requirements"]
        if f"requirements.{name}" not in SETTINGS and name != "tokenizer"
    ]
    return [*found, *(f"ours: {said}" for said in choices)]


def value_of(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key; a list where ``*`` stands for each entry of one.

    ``None`` where a section that would hold it is not there.
    """
    found: Any = settings
    steps = key.split(".")
    for i, step in enumerate(steps):
        if step == "*":
            return [value_of(entry, ".".join(steps[i + 1 :])) for entry in found or ()]
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _unordered(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list) else value


def _code(value: Any) -> str:
    """Write a value as a code span in Markdown, on one line."""
    is_plain = isinstance(value, str) and value.isprintable()
    text = value if is_plain else json.dumps(value, ensure_ascii=False)
    return f"`` {text} ``" if "`" in text else f"`{text}`"
