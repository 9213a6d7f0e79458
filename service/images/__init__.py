"""Images of requests: what they are, what decoding them costs, and decoding them."""
