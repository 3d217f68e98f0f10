"""sd-scripts: its checkout, its scripts patched, the dataset behind its own, its trainer's subclass."""
