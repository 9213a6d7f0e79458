"""Files that are made once and used again: whole, unchanged, and sealed if asked."""
