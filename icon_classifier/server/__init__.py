"""What stands between strangers and Voilà: requests, messages, static files."""
