"""``accelerate launch training/finetune_blender.py --config CONFIG --out DIR``: `augesc train`."""

from __future__ import annotations

import sys

from augesc_builder.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
