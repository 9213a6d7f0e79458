"""Names of how a model may take its image."""

NCHW, NHWC = "nchw", "nhwc"
LAYOUTS = (NCHW, NHWC)
RGB, BGR, GREY = "rgb", "bgr", "grey"
COLORS = (RGB, BGR)
"""The orders of three channels."""
