"""AugESC, a corpus of emotional support conversations: regenerate it, or make your own.

    import augesc

    recipe = augesc.load_recipe("quickstart")
    augesc.build(recipe, "corpus-quickstart")

Importing this is light: heavy libraries are loaded by the stage that needs them. The ``datasets``
builder behind ``load_dataset("augesc")`` is not in this version.
"""

from __future__ import annotations

from augesc_builder import __version__
from augesc_builder.errors import AugescError
from augesc_builder.pipeline import build
from augesc_builder.recipe import load_recipe, shipped_recipes
from augesc_builder.settings import Recipe

__all__ = ["AugescError", "Recipe", "__version__", "build", "load_recipe", "shipped_recipes"]
