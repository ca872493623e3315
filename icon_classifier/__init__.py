"""Your own picture classifier: a photo goes in at a Voilà page and comes out with a label."""

import os

# ONNX Runtime reports its use to its makers, from a thread of its own, unless told not to before it
# is imported. A visitor's photo is nobody else's business, and a process with threads cannot be
# forked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
