"""The Thrift server, and everything that both handlers share."""
