"""The front door: one command line for the programs of this project."""
