"""What ``benchmarks/findings.py`` makes: models, their texts, and what of those is kept.

Everything is a folder of a stage of the package below one folder, and is not made again.
"""

from __future__ import annotations

import json
import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.metrics.content_words import content_words
from augesc_builder.metrics.distinct import hash_of
from augesc_builder.metrics.informativeness.facts import facts
from augesc_builder.metrics.intervals import Numbers
from augesc_builder.models import causal_lm, pretrained
from augesc_builder.models.backbone import place_of
from augesc_builder.models.likelihoods import plain
from augesc_builder.models.training_step import IGNORED
from augesc_builder.pipeline.filter import stage as filter_
from augesc_builder.pipeline.finetune import stage as finetune
from augesc_builder.pipeline.finetune.examples import encode, sample_sessions
from augesc_builder.pipeline.generate import stage as generate
from augesc_builder.pipeline.queries import stage as queries
from augesc_builder.run import layout
from augesc_builder.run.marks import parquet_files
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import load_json
from augesc_builder.sources.base import Session
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.text.prompt_form import prompt_form
from augesc_builder.text.prompts import PLAIN, Message, render, whole_text
from benchmarks.harness import LOOSE, SHARED

TOPICS_SEEN = 5
"""The most frequent problem types, which are learned from; the others are left out."""

QUIET = Progress(quiet=True)

LEARNING = (
    "finetune.held_out=0",
    "finetune.weights_dtype=bfloat16",
    "finetune.learning_rate=1e-3",
)
"""Of a low-rank update, on one core; ``target_modules`` come with the model's number of layers."""

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


WRITING = ("generate.max_tokens=1000", "requirements.session_length.max=966")
"""Two thirds of the paper's 1,500 and 1,450: what is learned from ends far below."""

CLOCK = "processor.json"


@dataclass(frozen=True)
class Experiments:
    """Where everything is, and what all experiments have in common."""

    out: Path
    overrides: tuple[str, ...]
    """Of the recipe: the backbone, and whatever was asked for."""
    n_queries: int
    n_unseen: int
    """Sessions of each kind that perplexity is measured on."""
    longest: int
    """Tokens of a session at most."""
    layers: int
    """How many layers learn, from above; 0: the whole model does."""
    tiny: bool = False

    def recipe(self, *more: str) -> Recipe:
        """Return the recipe of all, with what is other in one of them."""
        chosen = [*LEARNING, *self.overrides, f"finetune.sessions={self.learned_from}"]
        return load_recipe("quickstart", [*chosen, *(_TINY if self.tiny else ()), *more])

    @property
    def learned_from(self) -> Path:
        """The file of sessions that all models learn from, some or all."""
        return self.out / "sessions.txt"

    def trained(self, name: str, *more: str) -> Path:
        """Fine-tune a model, if it is not there; return its checkpoint."""
        at = self.out / name
        finetune.standalone(self.recipe(*self._low_rank(), *more), at, Progress())
        return at / layout.CHECKPOINT

    def written(
        self, name: str, queries_at: Path, model: Path | None, *more: str, tokenizer: Path
    ) -> Path:
        """Generate a text for each query, and filter them; return the folder of both.

        The processor time of all processes is kept beside them, however often it was begun.
        """
        at, recipe = self.out / name, self.recipe(*(_TINY_WRITING if self.tiny else WRITING), *more)
        if (at / "kept" / layout.FILTER_REPORT).exists():
            return at
        at.mkdir(parents=True, exist_ok=True)
        clock, begun = at / CLOCK, _processor_seconds()
        try:
            generate.standalone(recipe, queries_at, model, at / "texts", Progress())
        finally:
            before = load_json(clock)["seconds"] if clock.exists() else 0.0
            spent = before + _processor_seconds() - begun
            clock.write_text(json.dumps({"seconds": spent}), encoding="utf-8")
        filter_.standalone(
            recipe, at / "texts", at / "kept", QUIET, tokenizer=str(tokenizer), num_proc=1
        )
        return at

    def cell(self, cell: str) -> Path:
        """Return the model that learned from so many sessions for so many epochs."""
        n, epochs = cell.split("x")
        return self.trained(
            f"{cell}/model", f"finetune.n_sessions={n}", f"finetune.epochs={epochs}"
        )

    def another(self, cell: str) -> Path:
        """Return a model of the same sessions as a cell's, of another seed."""
        n, epochs = cell.split("x")
        file = self.out / cell / "sessions.txt"
        if not file.exists():
            write_lines(file, self.drawn(cell))
        return self.trained(
            f"{cell}/another",
            f"finetune.sessions={file}",
            f"finetune.n_sessions={n}",
            f"finetune.epochs={epochs}",
            f"seed={self.recipe().seed + 1}",
        )

    def drawn(self, cell: str) -> list[Session]:
        """Return the sessions that a cell learned from, as its fine-tuning drew them."""
        sessions, n = read_esconv(self.learned_from), int(cell.split("x", maxsplit=1)[0])
        return sample_sessions(sessions, n, self.recipe().seed)

    def _low_rank(self) -> Iterator[str]:
        if self.layers:
            config = causal_lm.config_of(None, place_of(self.recipe().backbone), None)
            n = causal_lm.size_of(config)[1]
            names = [
                f"layers.{i}.{block}.{name}"
                for i in range(n - self.layers, n)
                for name in PROJECTIONS
                for block in ["self_attn" if name in PROJECTIONS[:4] else "mlp"]
            ]
            found = f"{{rank: 16, alpha: 32, dropout: 0, target_modules: [{', '.join(names)}]}}"
            yield f"finetune.lora={found}"


_TINY = (
    "finetune.batch_size=4",
    "finetune.micro_batch_size=4",
    "finetune.mixed_precision='no'",
    "finetune.weights_dtype=float32",
    "finetune.learning_rate=4e-3",
    "generate.backend.dtype=float32",
    *LOOSE,
)


_TINY_WRITING = ("generate.max_tokens=600", "requirements.session_length.max=1500")


def _processor_seconds() -> float:
    """Return the processor time of this process and of those below it that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


@dataclass(frozen=True)
class Unseen:
    """Sessions that no model learned from: of topics that were learned, and of all others."""

    seen: list[Session]
    left_out: list[Session]


def write_sessions(at: Experiments) -> Unseen:
    """Write the file of sessions to learn from; return those that perplexity is measured on.

    Of ESConv's train and validation splits those of the most frequent problem types that are no
    longer than ``longest`` are learned from. Other sessions of these types are of its test split;
    those of all other types may be of any.
    """
    folder = SHARED / "esconv"
    if at.tiny or not folder.is_dir():
        sessions = read_sample_sessions()
        new = sessions[::5]
        old = [session for session in sessions if session not in new]
    else:
        old = [s for split in ("train", "valid") for s in read_esconv(folder / f"{split}.txt")]
        new = read_esconv(folder / "test.txt")
    seen = {kind for kind, _ in Counter(s.problem_type for s in old).most_common(TOPICS_SEEN)}
    recipe = at.recipe()
    tokenizer = pretrained.load_tokenizer(place_of(recipe.backbone))
    form = prompt_form(recipe.prompt, tokenizer, "the backbone")

    def fits(session: Session) -> bool:
        return len(encode(session, form, at.longest + 1).input_ids) <= at.longest

    if not at.learned_from.exists():
        write_lines(at.learned_from, [s for s in old if s.problem_type in seen and fits(s)])

    def drawn(found: Sequence[Session]) -> list[Session]:
        return sample_sessions(found, min(at.n_unseen, len(found)), recipe.seed)

    return Unseen(
        drawn([s for s in new if s.problem_type in seen and fits(s)]),
        drawn([s for s in [*old, *new] if s.problem_type not in seen and fits(s)]),
    )


def write_lines(file: Path, sessions: Sequence[Session]) -> None:
    """Write sessions in ESConv's form."""
    speakers = {"user": "usr", "assistant": "sys"}
    with file.open("w", encoding="utf-8") as lines:
        for session in sessions:
            said = ((speakers[m["role"]], m["content"]) for m in session.messages)
            dialog = [{"speaker": speaker, "text": text} for speaker, text in said]
            lines.write(json.dumps({"problem_type": session.problem_type, "dialog": dialog}))
            lines.write("\n")


FEW, MANY = 4, 8
"""Different content words of a generic query at most, and of an informative one at least."""


def write_queries(at: Experiments) -> dict[str, Path]:
    """Draw queries of both kinds from the posts of a source; return the tables.

    Informative: ``MANY`` content words and a fact (a name, a number, somebody of the family or the
    like); generic: no more than ``FEW``, and no fact. What is between is of neither kind.
    """
    recipe = at.recipe("queries.n_words={min: 3, max: 60}")
    place = SHARED / "empathetic_dialogues" / "test.csv"
    real = not at.tiny and place.exists()
    source = f"empathetic_dialogues={place}" if real else "sample"
    posts = at.out / "posts"
    queries.standalone(recipe, [source], posts, QUIET)
    (table,) = map(pq.read_table, posts.glob(f"{layout.QUERIES}*.parquet"))
    found = {}
    # The bundled posts are all informative by half: what is not wholly so is the other kind.
    is_generic = _is_generic if real else lambda text: not _is_informative(text)
    for kind, is_one in {"informative": _is_informative, "generic": is_generic}.items():
        rows = [i for i, text in enumerate(table["text"].to_pylist()) if is_one(text)]
        ids = table["query_id"].to_pylist()
        rows.sort(key=lambda i: hash_of(ids[i], seed=recipe.seed))
        found[kind] = at.out / f"{kind}.parquet"
        if not found[kind].exists():
            pq.write_table(table.take(pa.array(rows[: at.n_queries], pa.int64())), found[kind])
    return found


def _is_informative(text: str) -> bool:
    return len(set(content_words(text))) >= MANY and any(facts(text))


def _is_generic(text: str) -> bool:
    return len(set(content_words(text))) <= FEW and not any(facts(text))


def losses(at: Experiments, name: str, model: Path | str, sessions: Sequence[Session]) -> Numbers:
    """Return nats and tokens of the conversation of each session, (sessions, 2).

    They are computed in the type of the weights that generation has, and kept.
    """
    file = at.out / f"{name}.json"
    if not file.exists():
        recipe = at.recipe()
        dtype = "float32" if at.tiny else "bfloat16"
        loaded, tokenizer = causal_lm.load(model, revision=None, dtype=dtype)
        form = prompt_form(recipe.prompt, tokenizer, model)
        rows = []
        for session in sessions:
            example = encode(session, form, at.longest)
            nats = plain(loaded.eval(), example.input_ids, []).text
            counted = [label != IGNORED for label in example.labels[1:]]
            rows.append([-sum(n for n, c in zip(nats, counted, strict=True) if c), sum(counted)])
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(rows), encoding="utf-8")
    return np.array(json.loads(file.read_text(encoding="utf-8")), dtype=np.float64)


def tiny_backbone(folder: Path) -> Path:
    """Save a Llama with random weights, whose tokenizer has a chat template."""
    marks = ("<|im_start|>", "<|im_end|>")
    texts = [render(session.messages) for session in read_sample_sessions()]
    tokenizer = causal_lm.train_tokenizer(texts, 400, marks)
    tokenizer.add_special_tokens({"additional_special_tokens": [*marks]})
    tokenizer.eos_token = tokenizer.pad_token = marks[1]
    tokenizer.chat_template = CHATML
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(13)
    with causal_lm.quiet_bars():
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the tables of a stage, below its folder."""
    files = parquet_files(folder) or parquet_files(folder / layout.GENERATIONS)
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def conversations(found: Path) -> list[list[Message]]:
    """Return the texts that were generated there with their queries, as far as they can be read."""
    read = (PLAIN.parse(whole_text(row["query"], row["text"])) for row in rows_of(found / "texts"))
    return [messages for messages in read if messages]
