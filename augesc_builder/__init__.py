"""The pipeline behind the AugESC corpus: queries, fine-tuning, generation, filtering, statistics.

:mod:`augesc_builder.pipeline.build` is the readable summary of the whole.
"""

__version__ = "0.1.0"
