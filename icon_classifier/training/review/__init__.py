"""What is shown around a training: its cost, its outcome, where it errs and what to do next."""
