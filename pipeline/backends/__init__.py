"""The backends that come with the pipeline; importing this package registers them."""

from pipeline.backends import containers, inference, opencv

__all__ = ["containers", "inference", "opencv"]
