"""What the Makefile and the hosts run: set-up, serving, locking, releasing a model."""
