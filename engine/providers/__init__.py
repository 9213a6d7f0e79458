"""One module a provider, imported only where that provider was chosen."""
