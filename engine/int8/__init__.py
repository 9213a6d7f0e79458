"""int8: images to calibrate with, rounded weights, and graphs that are quantised with both."""
