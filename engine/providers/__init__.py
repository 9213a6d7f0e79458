"""A module for each provider, imported only where that provider was chosen, and their table."""
