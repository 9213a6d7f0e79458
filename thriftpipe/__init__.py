"""thriftpipe: image classification behind Thrift, and the pipelines that it runs."""

__version__ = "0.1.0"
