"""Two models that chat, for ``benchmarks/findings.py``: language models of the paper's form.

Each is told by a chat template to write one side's lines alone; a line's end ends an utterance.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from augesc_builder.config.training import Role
from augesc_builder.models import pretrained
from augesc_builder.text.prompts import SEEKER, SUPPORTER
from benchmarks.findings_runs import Experiments

CONTEXT, UTTERANCE = 512, 64
"""Tokens that a model reads, the oldest utterances behind the query left out, and that it says."""

LAST_WORDS = "[bye, bye-bye, goodbye]"

SAID: dict[Role, tuple[str, str]] = {
    "supporter": (SEEKER, SUPPORTER),
    "seeker": (SUPPORTER, SEEKER),
}
"""What stands before what a speaker hears, and before what it says itself."""


def chatted(
    at: Experiments, name: str, queries: Path, supporter: Path, seeker: Path, batch: int
) -> Path:
    """Let two models talk to each other from each query on; return the folder of the texts."""
    models: dict[Role, Path] = {"supporter": supporter, "seeker": seeker}
    folders = {role: _speaker(at, m, at.out / name / role, role) for role, m in models.items()}
    both = ", ".join(f"{role}: {{model: {m}, revision: null}}" for role, m in folders.items())
    dtype = "float32" if at.tiny else "bfloat16"
    backend = (
        f"{{type: self_chat, {both}, max_utterances: {12 if at.tiny else 30}, dtype: {dtype}, "
        f"end_words: {LAST_WORDS}, max_utterance_tokens: {UTTERANCE}, batch_size: {batch}}}"
    )
    return at.written(name, queries, None, f"generate.backend={backend}", tokenizer=supporter)


def _speaker(at: Experiments, model: Path, folder: Path, role: Role) -> Path:
    """Make a folder of a model that writes the lines of one side; the weights are shared."""
    folder.mkdir(parents=True, exist_ok=True)
    for weights in model.glob("*.safetensors"):
        if not (folder / weights.name).exists():
            os.link(weights, folder / weights.name)
    hears, says = SAID[role]
    tokenizer = pretrained.load_tokenizer(model)
    (end,) = tokenizer.encode("\n", add_special_tokens=False)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    tokenizer.chat_template = (
        f"{{{{ {json.dumps(at.recipe().prompt.instruction)} + '\\n' }}}}{{% for m in messages %}}"
        f"{{{{ '{says}' if m['role'] == 'assistant' else '{hears}' }}}}: {{{{ m['content'] }}}}"
        f"{{{{ '\\n' }}}}{{% endfor %}}{{% if add_generation_prompt %}}{says}:{{% endif %}}"
    )
    tokenizer.save_pretrained(folder)
    config = pretrained.load_config(model)
    config.eos_token_id, config.max_position_embeddings = end, CONTEXT + UTTERANCE
    config.save_pretrained(folder)
    return folder
