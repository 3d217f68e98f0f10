"""Trains one LoRA on single characters, then on composites: `accelerate launch train_composite.py --config cg3.toml`."""

import sys

from lycoris_composite.launcher import main

if __name__ == "__main__":
    sys.exit(main())
