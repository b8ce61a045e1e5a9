"""Online experiments: which user sees what, and what it changed."""
