"""Bytes that are taken for an image, and hold what a scripted handler is to do."""

import struct

PICTURE = b"BM" + bytes(12) + struct.pack("<Iii", 40, 1, 1)
"""What a BMP begins with: its header, of one pixel."""
