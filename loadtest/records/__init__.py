"""What a run leaves: its records, raw files and machine."""
