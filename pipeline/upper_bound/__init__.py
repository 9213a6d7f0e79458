"""Preprocessing and engine without RPC and queues: what the machine does at best."""
