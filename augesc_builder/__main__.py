"""``python -m augesc_builder`` is the command line, for launchers such as ``accelerate launch``."""

from augesc_builder.cli.app import main

main()
