"""`thriftpipe try`: five minutes to an answer, with a model and images of one's own."""
