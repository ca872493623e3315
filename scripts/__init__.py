"""What the Makefile calls: set-up, serving, locking and the play of a deployment."""
