"""Text to values: the only folder that knows kohya's keys. No pixels, no torch."""
