"""Settings of the site: Markdown by MyST, the Python API from docstrings, furo's looks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from augesc_builder import __version__

project = "augesc"
author = "the authors of augesc"
copyright = "the authors of augesc; Apache-2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

# Headings of pages can be linked to as on GitHub: `[engines](generation.md#engines)`.
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "exclude-members": "model_config",
    "no-value": True,
}
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

# Blocks without a language are commands and what they print.
highlight_language = "none"

html_theme = "furo"
html_title = f"augesc {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False


def setup(app: Any) -> None:
    """Connect what mends signatures."""
    app.connect("autodoc-process-signature", _readable_defaults)


def _readable_defaults(*given: Any) -> tuple[str | None, str | None]:
    """Rewrite defaults that are no Python, at which reading of the whole signature fails."""
    signature, returns = given[-2:]
    if signature:
        signature = re.sub(r"= (\d+\.\d+\.\d+)", r"= '\1'", signature)
        signature = signature.replace("= <factory>", "= ...")
    return signature, returns
