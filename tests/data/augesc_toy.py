"""A plugin of augesc: a source, a requirement and a backend, as CONTRIBUTING shows them."""

from pathlib import Path
from typing import Literal

import augesc


def read_diary(path, bad):
    """A line of a file is a post."""
    for line in Path(path).read_text().splitlines():
        yield augesc.Post(line)


augesc.register(
    augesc.SourceInfo(
        name="diary",
        label="Diary",
        about="a file with a post a line",
        licence="cc-by-4.0",
        producers="The posts of the diary were written by one person, for this test.",
        citation="@misc{diary, title={A diary}}",
        paper=None,
        read=read_diary,
    )
)


class FewQuestions(augesc.Section):
    """At most so many question marks in a conversation."""

    max: int


def few_questions(batch, limits):
    return [None if n is None else n <= limits.max for n in batch["n_questions"]]


def count_questions(messages):
    return sum(message["content"].count("?") for message in messages)


augesc.register(
    augesc.Requirement(
        name="few_questions",
        heading="questions",
        test=few_questions,
        settings=FewQuestions,
        measures={"n_questions": count_questions},
    )
)


class Echo(augesc.Backend):
    """Lets the supporter repeat what the seeker says."""

    class Settings(augesc.BackendSettings):
        type: Literal["echo"] = "echo"
        turns: int = 6

    about = "the supporter repeats what the seeker says"
    needs_checkpoint = False

    def stream(self, tasks, on_step):
        for task in tasks:
            said = task.query["text"]
            lines = [f"AI: {said}", f"Human: {said}"] * self.recipe.generate.backend.turns
            text = "\n".join(lines).removeprefix("AI:")
            on_step(1, 0, None)
            yield task, self.row(task, text, n_prompt_tokens=1, n_tokens=len(text.split()))


augesc.register(Echo)
