"""Where photos come from: searches, addresses, folders, archives and drawings."""
