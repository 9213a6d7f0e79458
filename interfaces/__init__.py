"""What the programs share without importing each other: their messages and their options."""
