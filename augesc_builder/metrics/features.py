"""What every measurement takes, as ``evaluate`` wants it said."""

from __future__ import annotations

import datasets

FEATURES = datasets.Features(
    {"messages": [{"role": datasets.Value("string"), "content": datasets.Value("string")}]}
)
