"""What the machine allows: memory, cores, who may compute now, a shared count."""
