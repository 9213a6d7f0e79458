"""The servers that are compared, each a process."""
