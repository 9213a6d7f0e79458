"""Past one machine: front ends that forward calls to replicas, which Ray Serve places and replaces.

A replica is a Ray Serve deployment's; in it the plain server (`service.server.Server`) listens on a
free port of its node. A front end is the plain server, too, whose service forwards each call over
Thrift to one of them. `setup.cfg` says which modules know Ray.
"""

import os

# Before Ray is imported, which reads them then.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# SIGTERM and its like are the server's, whichever thread connects to Ray.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
# What is asked of Ray after this process has left it must not start another Ray here.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
# Lines of several replicas that are alike are not the same.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
# Of the load of replicas: with Serve's own, 10 s, a queue would be full before it is seen.
os.environ.setdefault("RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "2")
# Of Serve's controller, which would look ten times a second whether there is anything to do.
os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5")
# The log may be a file.
os.environ.setdefault("RAY_COLOR_PREFIX", "0")
