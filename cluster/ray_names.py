"""Names under which the parts of a server are found in a Ray cluster."""

APP = "thriftpipe"
DEPLOYMENT = "replica"
NAMESPACE = "thriftpipe"
REGISTRY = "registry"
