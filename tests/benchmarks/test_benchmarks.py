"""Every benchmark at its tiny size: the table comes out, with its rows. No time is looked at."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from augesc_builder.config.recipe import load_recipe
from tests.conftest import ROOT, shared

BENCHMARKS = ROOT / "benchmarks"
TIMEOUT = 600
"""Seconds until a script is taken to hang; on one idle core each takes some."""

FULL_SIZE = [
    *("augesc, 2 slots", "the same, static batches", "transformers.generate, batches of 2"),
    *("paper, 2 sessions", "paper-lora, 2 sessions"),
]
RAGGED = [
    *("augesc, 2 slots", "the same, static batches of 2"),
    *("the same, from which ended rows leave", "transformers.generate, batches of 2"),
]
SCRIPTS = {
    "scale.py": ["local, 100 shards", "slurm, 100 shards"],
    "scale.py --workers": ["one worker", "local, two", "slurm, two"],
    "sizing.py": [
        *("texts that are kept", "tokens of a text"),
        "tokens a second of GPT-J-6B on a GPU of 3.35 TB/s",
        "tokens a second of SmolLM2-135M on two cores",
        *("rows of a shard", "bytes of a text in Parquet", "bytes of a kept session"),
        *("bytes of a mark", "writes a shard and stage: file, mark, copy"),
        "other requests: three looks, a removal, two reads",
        "stages over shards: generate and filter",
        *("texts to generate", "tokens", "shards", "GPU hours, GPT-J-6B (computed)"),
        "hours on 16 such GPUs (computed)",
        *("hours of two cores, as many tokens of SmolLM2-135M", "storage, GB"),
        "network, workers and store, GB",
        *("writes to the store", "other requests"),
    ],
    "statistics_parts.py": [
        *("300 rows: owner, in parts", "300 rows: counts of shards", "300 rows: ranges of hashes"),
        *("300 rows: bands of sketches", "300 rows: the whole, one process"),
    ],
    "words.py": ["NLTK alone", "first sight", "second sight"],
    "published.py": [
        *("json.loads alone", "ours, one process", "ours, two processes"),
        "load_dataset, num_proc=2",
    ],
    "queries.py": [
        *("posts/s, the whole command", "posts/s, counting words by NLTK alone (one process)"),
        *("ratio", "peak memory of all processes (shared pages once), MB"),
    ],
    "danger.py": [
        *("suicide", "self_harm", "overdose", "harm_to_others", "abuse", "sexual_violence"),
        *("eating_disorder", "all danger", "none", "eating_disorder, flag"),
        *("sexual_violence, flag", "abuse, flag", "suicide, flag", "self_harm, flag", "none, flag"),
    ],
    "safety.py": [
        *("crisis", "abuse", "sexual_violence", "eating_disorder"),
        *("medical_advice", "harmful_agreement", "personal_data", "any flag"),
    ],
    "grounding.py": [
        *("texts", "sessions kept", "tokens for each kept session", "sessions compared"),
        *("contradictions a session", "surest contradiction, 0 to 1"),
        *("role confusions a session", "drift of supporters' turns (0.5: chance)"),
        *("share of supporters' turns that drifted", "new content words a seeker's turn"),
        *("new facts a seeker's turn", "distinct-2", "Vendi score, of as many sessions"),
    ],
    "findings.py": [
        *("optimizer steps", "tokens of an epoch", "texts", "kept by the eight requirements, %"),
        *("texts that never ended, %", "broken: format, %", "broken: session length, %"),
        *("broken: total utterances, %", "broken: continuous utterances, %"),
        *("broken: balanced utterances, %", "broken: role words, %"),
        *("broken: seeker utterance length, %", "broken: supporter utterance length, %"),
        "memorized 4-grams, %",
        *("the same of people's sessions of topics seen, %", "longest memorized span, words"),
        *("perplexity, topics seen", "its ratio to that before, topics seen"),
        *("perplexity, topics left out", "its ratio to that before, topics left out"),
        *("texts of 100 words or more", "distinct-1 of the first 100 words"),
        *("distinct-2 of the first 100 words", "Vendi score of the first 100 words"),
        *("words of a query", "utterances of a text", "words of an utterance"),
        *("texts of 10 utterances or more", "new content words a seeker's turn behind the query"),
        *("role confusions a session", "contradictions a session, by rules"),
        "drift of supporters' turns (0.5: chance)",
        *("tokens written for each kept session", "processor seconds for each text"),
        *("processor seconds for each kept session", "kept sessions an hour of one core"),
    ],
    "empathetic_dialogues.py": [
        *("ours: words by NLTK, 10 to 60, first utterance", "words are what blanks part"),
        *(
            "words by NLTK, punctuation marks left out",
            "commas left as the file writes them",
            "10 to 50",
        ),
        *("more than 10, fewer than 60", "the situation for the first utterance"),
        *("a choice of labels that keeps 36%", *load_recipe("paper").queries.negative_emotions),
    ],
    "corpus_statistics.py": [
        *("requirements and Table 2", "requirements (augesc filter)"),
        *("Table 2 (augesc stats --basic)", "NLTK's plain loop, one process"),
    ],
    "quality_calibration.py": [
        *("number of words alone", "position alone", "words in common with an earlier utterance"),
        "likeness to an earlier utterance that is not the same",
        "names and places that nobody said before",
        *("answers a question", "number of questions", "speaks of oneself"),
        *("consistency, by rules", "these together, fitted", "people with people", "judge: gpt"),
        *("which system it was, alone", "share of content words in the utterance before"),
        *("topic drift, by words", "share of words that the speaker said before"),
        "likeness of a sentence to an earlier one of the speaker",
        *("informativeness, new words", "experts with experts", "crowd", "gpt"),
    ],
    "topic_priors.py": [
        *("printed", "pooled"),
        *(f"scaled:{n}e6" for n in (20, 35, 46, 60, 100)),
        *("uninformative:0.01", "uninformative:0.1"),
    ],
    "quality_speed.py": [
        *("informativeness", "topic drift by words", "topic drift by likelihood"),
    ],
    "quantization.py": [
        "bfloat16 against float32",
        "int8 against bfloat16",
        "int8 against float32",
    ],
    "finetuning.py": ["transformers.Trainer", "augesc"],
    "contradictions.py": [
        *("decode", "turned copy", "style", "same side", "halves", "session", "copy"),
        *("decode against style", "decode against same side", "decode against halves"),
        *("decode against session", "decode against copy", "turned copy against copy"),
        "all against all",
    ],
    "generation.py": RAGGED,
    "generation.py --processes --types int8": [
        f"augesc, int8, {way}"
        for way in (
            *("one process, one thread", "one process, two threads"),
            "two processes, one thread each",
        )
    ],
    "generation.py --model gptj-6b": FULL_SIZE,
    "generation.py --model smollm2": [
        *("a step's products alone, torch", "augesc, 2 contexts"),
        "a step's products alone, our loops",
        *RAGGED,
    ],
}
SLOW = {
    *(
        "corpus_statistics.py",
        "generation.py --processes --types int8",
        "generation.py --model gptj-6b",
    ),
    *("finetuning.py", "quantization.py", "contradictions.py", "grounding.py"),
    *("findings.py", "scale.py --workers", "statistics_parts.py", "scale.py"),
    *("quality_speed.py", "generation.py --model smollm2", "quality_calibration.py"),
}


def table_of(output: str) -> dict[str, list[str]]:
    """Give the rows of the Markdown tables in an output, without headers and rules."""
    rows = {}
    lines = output.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("| ") and not re.match(r"\| -+ \|", line):
            first, *others = [cell.strip() for cell in line.strip("|").split("|")]
            if not re.match(r"\| -+ \|", following):
                rows[first] = others
    return rows


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in SCRIPTS],
)
def test_the_tiny_size_prints_the_table(command, tmp_path):
    name, *options = command.split()
    # As from the root of a clone; caches of `datasets` are the test's own.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}", "--tiny", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = table_of(done.stdout)
    assert list(rows) == SCRIPTS[command]
    for cells in rows.values():
        assert any(re.match(r"-?[\d,.]+", cell) for cell in cells), done.stdout


def test_the_documented_table_of_empathetic_dialogues():
    shared("empathetic_dialogues/test.csv")
    done = subprocess.run(
        [sys.executable, "benchmarks/empathetic_dialogues.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    rules = list(table_of(done.stdout).items())[:8]
    page = (ROOT / "docs" / "queries.md").read_text()
    for rule, cells in rules:
        assert f"| {rule} | {' | '.join(cells)} |" in page


def test_the_documented_sizes_are_those_that_are_computed():
    done = subprocess.run(
        [sys.executable, "benchmarks/sizing.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    page = (ROOT / "docs" / "scaling.md").read_text()
    for table in done.stdout.strip().split("\n\n"):
        assert table in page


def test_no_script_is_forgotten():
    scripts = {path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text()}
    assert scripts == {command.split()[0] for command in SCRIPTS}


def test_benchmarks_hide_no_module_of_the_standard_library():
    names = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert not names & set(sys.stdlib_module_names)


def test_benchmarks_do_not_import_each_other_in_a_circle():
    imports: dict[str, set[str]] = {}
    for path in BENCHMARKS.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        imports[f"benchmarks.{path.stem}"] = {
            *(node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)),
            *(a.name for node in nodes if isinstance(node, ast.Import) for a in node.names),
        }
    assert "benchmarks.harness" in imports["benchmarks.words"]
    TopologicalSorter(imports).prepare()  # raises CycleError
