"""Models and tokenizers of transformers, loaded and checked."""
