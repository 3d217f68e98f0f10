"""What a composite is, as a function of (seed, epoch, index). Knows no kohya keys; only pictures.py reads files."""
