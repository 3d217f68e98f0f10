"""`accelerate launch -m lycoris_composite.train`: train_composite.py from anywhere."""

import sys

from lycoris_composite.launcher import main

if __name__ == "__main__":
    sys.exit(main())
