"""The load test: it knows the server by its wire and its command line only."""
