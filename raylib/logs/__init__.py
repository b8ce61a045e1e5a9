"""Search logs -> unique pairs, split by query: validation, an external hash shuffle, gold labels and splits."""
