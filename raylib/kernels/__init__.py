"""How a BERT encoder computes on a CPU: kernels that torch has but does not choose. Needs torch and transformers."""
