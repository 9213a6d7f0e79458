"""Where connections come from, and how many there may be."""
