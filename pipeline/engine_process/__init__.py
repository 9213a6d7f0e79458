"""One process for the engine, whatever the number of server processes.

Processes that share a GPU take turns on it, a time slice each: four server processes with a CUDA
context of their own got through 1,300 batches a second together, however small those were. And in
a process that also talks to clients, every call of a native library hands the interpreter's lock
to some connection's thread and then has to wait for it. So the workers of a server leave the nodes
that run on GPUs to a process that does nothing else, and reach it through shared memory. Triton
keeps its backends apart from its front end for the same reasons.
"""
