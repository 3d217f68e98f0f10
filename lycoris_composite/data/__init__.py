"""Files to values: images, captions and subsets as they lie on disk. May decode; knows no plan and no torch."""
