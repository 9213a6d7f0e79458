"""HTTP beside the Thrift port: metrics for Prometheus, and probes for orchestrators."""
