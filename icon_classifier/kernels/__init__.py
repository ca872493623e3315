"""Forked kernels for any Voilà notebook; knows nothing of photos or of the web server."""
