"""The options of the command line, and the settings that they become."""
