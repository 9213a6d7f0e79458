"""What is told of single requests, where it is asked for: log lines and traces."""
