"""Teach one LoRA to draw several characters in one picture, on kohya's sd-scripts."""

__version__ = "0.1.0"
