"""Look at a trained model: its plots, the photos that it gets wrong, and what to do next."""
