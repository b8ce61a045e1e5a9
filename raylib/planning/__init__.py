"""What a pipeline will need, from its settings and a sample of its input; nothing is started."""
