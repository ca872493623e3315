"""Your own picture classifier: a photo goes in at a Voilà page and comes out with a label."""

__version__ = "0.1.0"
