"""Memory, cores and slots, a count across processes, clients' addresses, logs, printable texts."""
