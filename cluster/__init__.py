"""Past one machine: front ends that forward calls to replicas, which Ray Serve places and replaces.

A replica is a Ray Serve deployment's; in it the plain server (`service.server.Server`) listens on a
free port of its node. A front end is the plain server, too, whose service forwards each call over
Thrift to one of them. Only `replica`, `directory` and `deployment` know Ray.
"""
