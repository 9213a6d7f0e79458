"""Children of the load test, which never outlive it."""
