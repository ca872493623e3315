"""Photos to train on: gather, clean, split."""
