"""How much of a corpus stands in what models that are trained on it are tested on."""
