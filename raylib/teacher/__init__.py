"""The teacher: continued pre-training, supervised fine-tuning and preference optimisation of a language model."""
