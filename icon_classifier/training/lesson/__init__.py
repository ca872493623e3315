"""Fine-tuning as fast.ai's first lesson does it, and what its loss curves show."""
