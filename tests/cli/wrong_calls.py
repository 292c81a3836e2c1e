"""Calls of the command line that are wrong on purpose, drawn from the commands' own options.

Every command, every option, each with values that a value of its kind should not have. What could
work for minutes (a build, a training) is always given something that nobody can accept.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from augesc_builder.cli.app import app
from augesc_builder.config.recipe import load_recipe
from augesc_builder.config.training import load_config
from augesc_builder.human_evaluation.exchange import export
from augesc_builder.run.progress import Progress
from tests.human_evaluation.studies import make_study

LONG = "n" * 300
DIGITS = "9" * 5000
DEEP = "[" * 3000
ESCAPES = "\x1b[31mred\x1b]0;title\x07 \u202eback\r\x9b2J"

NUMBERS = [
    *(
        "x",
        "",
        "-1",
        "0",
        "1.5",
        "\uff11",
        "0x10",
        "1e3",
        "nan",
        "inf",
        "-inf",
        "1e400",
        " 1 ",
        "--",
    ),
    *(DIGITS, "9" * 20, "2147483648", "4294967296", "9223372036854775808", "1_000", "²", "None"),
]
NAMES = [
    *("nope", "", " ", "..", "a/b/c/d", "/", "-", "~nobody/x", "$HOME", ESCAPES, LONG, DEEP, "字"),
    *("a\nb", "=", "=x", "x=", "a=b=c", "nope=nope", "reddit", "reddit=", "sample=nope", "hf://"),
    *("hf://datasets/", "hf://datasets/a/b@c", "http://127.0.0.1:9", "esconv:nope", "sample:"),
    *("sample:test:test", "sample", "esconv", "USER/NAME", "a/b", "@", "%s%n", "nul\0l", "\udcff"),
]
VALUES = [
    *(
        "null",
        "[]",
        "{}",
        "x",
        "-1",
        "0",
        "1.5",
        "1e400",
        ".nan",
        "-.inf",
        DIGITS,
        "0x" + "f" * 5000,
    ),
    *(
        "true",
        "'x'",
        '"\\0"',
        '"\\uD800"',
        "2020-13-45",
        "2020-01-01",
        "{a: 1, a: 2}",
        "[[]]",
        DEEP,
    ),
    *(
        "&a [*a]",
        "*a",
        "!!python/object:os.system x",
        "!!bool 3",
        "!!int ''",
        "!!binary x",
        "?",
        "",
    ),
    *("{a: {b: {c: d}}}", "[1, x, null]", LONG, "loop", "1_000", "1:30", "9" * 20, "@", "`", "%"),
    *("- x\n- y", "a: b: c", "\t", ESCAPES, "{source: nope}", "[{source: nope}]", "[{}]", "[null]"),
]


@dataclass(frozen=True)
class Option:
    """A parameter of a command; ``name`` is empty for an argument."""

    name: str
    kind: str
    is_flag: bool


@dataclass(frozen=True)
class Place:
    """Files that are wrong, each in its way, and some that are right."""

    wrong: list[str]
    right: dict[str, str]


@functools.cache
def commands() -> dict[str, list[Option]]:
    """Give every command's options, as the command line itself knows them.

    Those of a group are called ``study create``. Not ``--debug``, which asks for the traceback.
    """
    return {name: options_of(command) for name, command in leaves(typer.main.get_command(app))}


def leaves(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the commands of a group and of those in it, by their words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def options_of(command: Any) -> list[Option]:
    """Give the options of one command."""
    hints = get_type_hints(inspect.unwrap(command.callback))
    return [
        Option(
            param.opts[0] if param.param_type_name == "option" else "",
            kind_of(param.opts, hints[param.name]),
            bool(getattr(param, "is_flag", False)),
        )
        for param in command.params
        if param.name not in {"help", "debug"}
    ]


def kind_of(names: list[str], hint: Any) -> str:
    """Say what a parameter takes: a number, ``--set``, or a name or path."""
    if "--set" in names:
        return "set"
    return "number" if {int, float} & {hint, *get_args(hint)} else "name"


def lay_out(folder: Path, built: Path, recipe: Path) -> Place:
    """Make the files that calls are about."""
    folder.mkdir(exist_ok=True)
    files: dict[str, bytes] = {
        "empty": b"",
        "empty.parquet": b"",
        "noise.parquet": bytes(range(256)) * 9,
        "noise.jsonl": bytes(range(256)) * 9,
        "latin.txt": "Straße\n".encode("latin-1"),
        "escapes.jsonl": json.dumps({ESCAPES: ESCAPES, "source": "<script>\n# x"}).encode(),
        "deep.json": b"[" * 100_000,
        "digits.json": b'{"messages": ' + b"9" * 10_000 + b"}",
        "surrogate.jsonl": b'{"text": "\\ud800", "query": "\\udfff"}',
        "numbers.jsonl": b'{"text": 1, "query": 2}\n{"messages": 3}\n{"messages": [4]}\nnull\n5\n',
        "roles.jsonl": b'{"messages": [{"role": ["user"], "content": {}}], "source": 7}\n',
        "gz.gz": b"\x1f\x8b\x08\x00damaged",
        "zst.zst": b"\x28\xb5\x2f\xfddamaged",
        "tar.tar.xz": b"\xfd7zXZ\x00damaged",
        "table.csv": b'id,text\n1,"never closed\n2,x\n',
        **{
            f"{name}.yaml": text.encode("utf-8", "surrogatepass")
            for name, text in {
                "date": "extends: tiny\nname: 2020-13-45\nseed: x\n",
                "digits": f"extends: tiny\nseed: {DIGITS}\n",
                "deep": f"extends: tiny\nname: {DEEP}\n",
                "twice": "extends: tiny\nseed: 1\nseed: 2\n",
                "itself": "extends: itself.yaml\n",
                "circle": "&a [*a]\n",
                "list": "- x\n",
                "text": "x\n",
                "numbers": "1: 2\n",
                "extends1": "extends: [a]\n",
                "extends2": "extends: {a: b}\n",
                "extends3": f"extends: {LONG}\n",
                "extends4": 'extends: "a\\0b"\n',
                "extends5": "extends: loop\n",
                "tag": "!!python/object:os.system x\n",
                "control": "a: \x07\n",
                "half": "name: \ud800\n",
                "bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
                + "".join(
                    f"{k}: &{k} [{','.join(['*' + chr(ord(k) - 1)] * 9)}]\n" for k in "bcdefghij"
                ),
            }.items()
        },
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name, there in {"loop": "pool", "pool": "loop", "dangling": "nowhere"}.items():
        (folder / name).symlink_to(there)
    os.mkfifo(folder / "fifo")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(os.path.relpath(folder / "socket"))
    bound.close()
    folders: dict[str, dict[str, str]] = {
        "hollow": {},
        "theirs": {"manifest.json": '{"name": "app"}', "index.html": "<p>"},
        "list": {"manifest.json": "[]", "recipe.yaml": "- x", "config.json": "[]"},
        "broken": {"manifest.json": "{", "recipe.yaml": "{", "config.json": "{"},
        "no-model": {"config.json": '{"model_type": "gptj"}', "model.safetensors": "x"},
        "no-kind": {"config.json": '{"model_type": "nope"}', "tokenizer.json": "{}"},
        "bpe": {"vocab.json": "[]", "merges.txt": "x"},
        "facts": {"config.json": "{}", "training.json": "[]", "model.safetensors": ""},
    }
    for name, inside in folders.items():
        (folder / name).mkdir()
        for file, text in inside.items():
            (folder / name / file).write_text(text)
    wrong = [str(path.relative_to(folder)) for path in sorted(folder.iterdir())]
    wrong += ["empty/x", "loop/x", "/dev/null", "/dev/null/x", "/dev/full", "/dev/zero", "/proc"]
    wrong += ["/proc/self/mem", "a/" * 2500, f"{LONG}/x", f"hollow/{LONG}", "nowhere", "."]
    sessions = folder / "sessions.jsonl"
    said = [{"role": r, "content": f"word {i}"} for i in range(4) for r in ("user", "assistant")]
    sessions.write_text(json.dumps({"messages": said}) + "\n")
    texts = folder / "texts.jsonl"
    texts.write_text(json.dumps({"query": "I feel low.", "text": " I am sorry."}) + "\n")
    study = make_study(folder / "study")
    ratings = folder / "ratings.csv"
    export(study, ratings, "csv", Progress(quiet=True))
    right = {
        "study": str(study.folder),
        "ratings": str(ratings),
        "run": str(built),
        "model": str(built / "checkpoint"),
        "queries": str(built / "queries"),
        "recipe": str(recipe),
        "sessions": str(sessions),
        "texts": str(texts),
    }
    return Place(wrong, right)


RIGHT: dict[str, tuple[str, ...]] = {
    "build": ("--out", "out", "--recipe", "{recipe}"),
    "queries": ("--out", "out", "--source", "sample"),
    "finetune": ("--out", "out", "--recipe", "{recipe}"),
    "generate": ("{queries}", "--checkpoint", "{model}", "--out", "out", "--recipe", "{recipe}"),
    "slurm": ("{recipe}", "--out", "out", "--array", "2"),
    "ray-job": ("paper", "--out", "/data/out", "--claim", "c", "--image", "i"),
    "filter": ("{texts}", "--out", "out"),
    "stats": ("{sessions}", "--out", "out"),
    "quality": ("{sessions}", "--out", "out"),
    "select": ("{sessions}", "--out", "out"),
    "pairs": ("{run}", "--out", "out"),
    "card": ("{run}",),
    "push": ("{run}", "--repo", "someone/corpus"),
    "safety": ("{run}",),
    "status": ("{run}",),
    "compare": ("a={run}", "b={run}", "--out", "out", "--resamples", "100"),
    "test": ("--name", "published"),
    "train": ("--out", "out", "--config", "tiny"),
    "evaluate-model": (
        *("{model}", "--sessions", "{sessions}", "--limit", "1", "--resamples", "100"),
        *("--max-tokens", "3"),
    ),
    "chat": ("{model}", "--max-tokens", "3"),
    "simulate": (
        *("--seeker", "{model}", "--system", "a={model}", "--cards", "sample:test"),
        *("--limit", "1", "--turns", "1", "--out", "out"),
    ),
    "view": ("{run}", "--port", "0"),
    "study create": ("A={sessions}", "--out", "out", "--sessions", "1"),
    "study export": ("{study}", "--out", "out"),
    "study import": ("{study}", "{ratings}"),
    "study report": ("{study}",),
    "study serve": ("{study}", "--port", "0"),
    "study judge": ("{study}", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m"),
}
"""For each command a call that is right, into which something wrong is put."""

WORKS_LONG: dict[str, tuple[str, ...]] = {
    "build": ("--dry-run",),
    "finetune": ("--set", "finetune.n_sessions=100000"),
    "generate": ("--set", "generate.max_tokens=100000"),
    "train": ("--set", "model.tokenizer=hollow"),
    "slurm": ("--file", "/dev/null/x"),  # nothing is submitted, should there be a cluster
    "view": ("--port", "65536"),
    "study serve": ("--url-prefix", "?"),
    "study judge": ("--dry-run",),
    "simulate": ("--dry-run",),
}
"""What keeps a command from working for minutes, where nothing else that is wrong does."""


@functools.cache
def keys() -> list[str]:
    """Give the keys of recipes and training configs, sections too."""

    def below(values: Any, prefix: str) -> Iterator[str]:
        for key, value in values.items() if isinstance(values, dict) else ():
            yield f"{prefix}{key}"
            yield from below(value, f"{prefix}{key}.")

    known = [
        *below(load_recipe("paper").settings(), ""),
        *below(load_config("tiny").settings(), ""),
    ]
    strange = [
        "",
        ".",
        "..",
        "a.b.c.d.e",
        "seed.x",
        "nope",
        "generate.backend.type",
        "extends",
        "字",
    ]
    return [*known, *strange, ESCAPES, LONG]


def draw(seed: int, place: Place) -> list[str]:
    """Draw a call."""
    dice = random.Random(seed)
    every = commands()
    name = sorted(every)[seed % len(every)]
    call = [*name.split(), *(part.format(**place.right) for part in RIGHT[name])]
    options = every[name]
    for option in dice.sample(options, min(len(options), dice.randint(1, 3))):
        value = wrong_value(option.kind, dice, place)
        if option.is_flag:
            call.append(option.name)
        elif option.name:
            call += [option.name, value]
        elif dice.random() < 0.8:
            begin = len(name.split())
            given = enumerate(RIGHT[name], begin)
            first = next((i for i, part in given if part[0] == "{"), len(call))
            call[first : first + 1] = [value]
        else:
            call.append(value)
    return [*call, *WORKS_LONG.get(name, ())]


def wrong_value(kind: str, dice: random.Random, place: Place) -> str:
    """Draw a value for a parameter."""
    if kind == "number":
        return dice.choice(NUMBERS)
    if kind == "set":
        return f"{dice.choice(keys())}={dice.choice([*VALUES, *VALUES, *place.wrong])}"
    path = dice.choice(place.wrong)
    return dice.choice([path, path, path, f"reddit={path}", f"x={path}", dice.choice(NAMES)])
