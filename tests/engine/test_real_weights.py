"""The engine on a real model: against transformers, a row in any company, draws, processes."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch

from augesc_builder.config.recipe import Prompt as PromptSettings
from augesc_builder.config.recipe import load_recipe
from augesc_builder.engine import Prompt, Sampling, generate
from augesc_builder.engine.cache import Segment
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.cpu_kernels import library
from augesc_builder.engine.models import network_of
from augesc_builder.engine.panel_cache import cache_of
from augesc_builder.engine.sampling import stream_key
from augesc_builder.models import causal_lm
from augesc_builder.pipeline.generate import stage
from augesc_builder.run.progress import Progress
from augesc_builder.tables import QUERIES as QUERIES_TABLE
from augesc_builder.tables import to_table
from augesc_builder.text.prompt_form import prompt_form
from tests.conftest import SOAK, rows_of

QUERIES = [
    "I lost my job today and I do not know how to tell my wife.",
    "My best friend moved to another city last week, and the flat is so quiet now.",
    "I failed the exam again, although I had studied for it every evening for two months.",
    "My mother is ill, and I lie awake at night.",
    "I shouted at my little brother this morning and I feel awful about it.",
    "Since we broke up I see her everywhere.",
    "Nobody at school talks to me, I eat my lunch alone behind the gym every single day.",
    "I have to give a talk on Friday.",
]


def prompts_in(name, tokenizer, queries=QUERIES):
    settings = PromptSettings(form=name, instruction="Be kind and helpful.")
    form = prompt_form(settings, tokenizer, "smollm2")
    return form, [Prompt(form.for_query(query), 7919 * n) for n, query in enumerate(queries)]


compiled = pytest.mark.skipif(library() is None, reason="there is no C++ compiler on this machine")
TYPES = [
    pytest.param("float32", None, id="float32"),
    pytest.param("bfloat16", None, id="bfloat16"),
    pytest.param("bfloat16", torch.int8, id="int8"),
]
"""Of the weights, and of the matrices if they are others."""


@pytest.mark.parametrize("name", ["paper", "chat"])
@pytest.mark.slow
def test_greedy_tokens_are_those_of_transformers(smollm2, name):
    model, tokenizer = causal_lm.load(smollm2, revision=None, dtype="float32")
    form, prompts = prompts_in(name, tokenizer, QUERIES[:2])
    limit = max(len(prompt.token_ids) for prompt in prompts) + 12
    sampling = Sampling(max_tokens=limit, greedy=True, repetition_penalty=1.05)
    engine = ContinuousBatchingEngine(model, form.end, sampling, 2)
    results = generate(engine, prompts, lambda *_: None)
    for prompt, result in zip(prompts, results, strict=True):
        ids = torch.tensor([prompt.token_ids])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=limit - ids.shape[1],
            repetition_penalty=1.05,
            eos_token_id=form.end,
            pad_token_id=form.end,
        )[0, ids.shape[1] :].tolist()
        ours = [*result.token_ids, *[form.end] * (result.finish_reason == "eos")]
        assert ours == theirs
        assert len(ours) > 8


N_LAYERS = 4
"""Of the real model's 30, where its depth does not matter: the others cost time alone."""


@pytest.fixture(scope="module")
def shallow(smollm2):
    """Load the first layers of the real model, in a type."""

    def load(dtype):
        model, tokenizer = causal_lm.load(smollm2, revision=None, dtype=dtype)
        model.model.layers = model.model.layers[:N_LAYERS]
        model.config.num_hidden_layers = N_LAYERS
        return model.eval(), tokenizer

    return load


def check_rows(model, tokenizer, weights):
    """Compare rows to the bit: company, also of like prompts, order, slots and threads."""
    form, prompts = prompts_in("chat", tokenizer)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    sampling = Sampling(longest + 8, top_p=0.9, temperature=0.9, repetition_penalty=1.05)

    def rows(order, slots=8):
        engine = ContinuousBatchingEngine(model, form.end, sampling, slots, weights=weights)
        made = generate(engine, [prompts[i] for i in order], lambda *_: None)
        return dict(zip(order, made, strict=True))

    all_of_them = rows(range(8))
    for order, slots in (([0], 8), ([0, 5, 0], 8), ([7, 3, 5, 0, 6, 1, 4, 2], 8), ([2, 6, 4], 1)):
        assert rows(order, slots) == {i: all_of_them[i] for i in order}
    assert rows(range(8), 17) == all_of_them
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert rows([4, 1]) == {i: all_of_them[i] for i in (4, 1)}
    finally:
        torch.set_num_threads(before)
    assert len({result.token_ids for result in all_of_them.values()}) == len(prompts)


@compiled
@pytest.mark.parametrize(
    ("dtype", "weights"),
    [TYPES[0], *(pytest.param(*t.values, id=t.id, marks=pytest.mark.slow) for t in TYPES[1:])],
)
def test_a_row_is_the_same_in_any_company(shallow, dtype, weights):
    check_rows(*shallow(dtype), weights)


@compiled
@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.skipif(not SOAK, reason="its layers are alike, and four of them tested: make soak")
@pytest.mark.parametrize(("dtype", "weights"), TYPES)
def test_so_it_is_of_the_whole_model(smollm2, dtype, weights):
    check_rows(*causal_lm.load(smollm2, revision=None, dtype=dtype), weights)


# -- draws -----------------------------------------------------------------------------------------

LEAST = 5
"""Expected draws of a cell of chi-square; tokens of fewer are one cell together."""

SAMPLING = {"top_p": 0.9, "temperature": 0.9, "repetition_penalty": 1.05}


def probabilities(logits, seen):
    """Return those of the next token in float64, by sorting all: section 4.1."""
    logits = logits.double().clone()
    for token in set(seen):
        logits[token] *= 1.05 if logits[token] < 0 else 1 / 1.05
    shares, order = torch.softmax(logits / 0.9, 0).sort(descending=True)
    before = shares.cumsum(0) - shares
    kept = shares.where(before < 0.9, 0)
    return torch.zeros_like(kept).scatter(0, order, kept / kept.sum())


def check_draws(model, tokenizer, weights, n):
    """Compare what is drawn with exact probabilities of the same type's logits, by chi-square."""
    form, (prompt, *_) = prompts_in("paper", tokenizer)
    ids = torch.tensor(prompt.token_ids)
    network = network_of(model, len(ids) + 1, weights=weights)
    cache = cache_of(model, 1, len(ids) + 1)
    cache.begin_prefill([Segment(0, 0, 0, len(ids))])
    with torch.inference_mode():
        logits = network.logits(ids, torch.arange(len(ids)), cache)
    # Behind the words where most tokens are likely enough to be counted.
    ids, expected = max(
        ((ids[:t], n * probabilities(logits[t - 1], ids[:t].tolist())) for t in range(2, len(ids))),
        key=lambda behind: int((behind[1] >= LEAST).sum()),
    )

    sampling = Sampling(len(ids) + 1, **SAMPLING)
    engine = ContinuousBatchingEngine(model, form.end, sampling, 16, weights=weights)
    rows = [Prompt(tuple(ids.tolist()), stream_key(11, "q", i)) for i in range(n)]
    made = generate(engine, rows, lambda *_: None)
    drawn = torch.tensor([r.token_ids[0] if r.token_ids else form.end for r in made])
    found = torch.bincount(drawn, minlength=len(expected)).double()
    assert not found[expected == 0].any()
    often = expected >= LEAST
    cells = torch.stack([found, expected])
    cells = torch.cat([cells[:, often], cells[:, ~often].sum(1, keepdim=True)], 1)
    freedom = cells.shape[1] - 1
    assert freedom > 10
    statistic = float(((cells[0] - cells[1]) ** 2 / cells[1]).sum())
    # Five standard deviations of chi-square: once in millions of seeds, and this one is fixed.
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


@compiled
@pytest.mark.parametrize(("dtype", "weights"), TYPES[1:])
@pytest.mark.slow
def test_tokens_are_drawn_by_their_probabilities(smollm2, dtype, weights):
    """All layers: behind a few of them hardly any text leaves more than some tokens open."""
    check_draws(*causal_lm.load(smollm2, revision=None, dtype=dtype), weights, 1000)


# -- processes and restarts ------------------------------------------------------------------------


@compiled
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "weights"), TYPES)
def test_processes_and_restarts_change_no_row(shallow, tmp_path, dtype, weights):
    """One process, two, and a run that lost half its shards and went on in two."""
    model, tokenizer = shallow("float32")
    model.save_pretrained(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    queries = [
        {"query_id": f"q{n}", "source": "sample", "text": text, "n_words": len(text.split())}
        for n, text in enumerate(QUERIES)
    ]
    (tmp_path / "queries").mkdir()
    pq.write_table(to_table(queries, QUERIES_TABLE), tmp_path / "queries" / "queries.parquet")
    kind = "null" if weights is None else "int8"
    settings = [
        *("generate.samples_per_query=1", "generate.max_tokens=60", "generate.shard_size=2"),
        *(f"generate.backend.dtype={dtype}", f"generate.backend.weights={kind}"),
    ]

    def rows(out, workers):
        recipe = load_recipe("smollm2", [*settings, f"generate.backend.workers={workers}"])
        stage.standalone(
            *(recipe, tmp_path / "queries", tmp_path / "checkpoint", tmp_path / out),
            Progress(quiet=True),
        )
        return rows_of(tmp_path / out)

    expected = rows("one", 1)
    assert len(expected) == len(QUERIES)
    assert rows("two", 2) == expected
    lost = sorted((tmp_path / "one").glob("*.parquet"))[::2]
    for path in lost:
        path.unlink()
    assert rows("one", 1) == expected
