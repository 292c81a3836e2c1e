"""Sessions that end where their topic changes, if what stands before is a session still."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augesc_builder.config.requirements import Requirements
from augesc_builder.models.token_counter import TokenCounter
from augesc_builder.pipeline.filter.functions import measure
from augesc_builder.pipeline.filter.requirements import decide
from augesc_builder.text.prompts import PromptTemplate


def cut(
    session: Mapping[str, Any],
    at: int,
    limits: Requirements,
    counter: TokenCounter | None,
    template: PromptTemplate,
) -> dict[str, Any] | None:
    """Return a row of the sessions table that ends before utterance ``at`` (from 0).

    ``None`` where what is left fails a requirement. Its tokens are counted anew, or null where
    nothing counts them; safety flags of what is gone are gone.
    """
    messages = session["messages"][:at]
    if not messages:
        return None
    n_tokens = None
    if counter is not None and session["n_tokens"] is not None:
        (n_tokens,) = counter.count([template.for_session(messages, session["background"])])
    batch = {"messages": [messages], "n_tokens": [n_tokens]}
    if decide(measure(batch, limits), limits.settings())["violations"] != [[]]:
        return None
    flags, strategies = session["safety_flags"], session["strategies"]
    return {
        **session,
        "messages": messages,
        "n_tokens": n_tokens,
        "safety_flags": flags and [flag for flag in flags if flag["utterance"] < at],
        "strategies": strategies and strategies[:at],
    }
