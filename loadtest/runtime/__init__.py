"""What the pipeline's runtime does by itself, beside torchpipe's: each in a process of its own."""
