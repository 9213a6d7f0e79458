"""The keys of an item, as torchpipe spells them."""

TASK_DATA_KEY = "data"
TASK_RESULT_KEY = "result"
# The order of an image's channels, "rgb" or "bgr".
TASK_COLOR_KEY = "color"
TASK_NODE_NAME_KEY = "node_name"
# Ours: set instead of `result` where an item failed.
TASK_ERROR_KEY = "error"
# Ours: "NODE.queue" and "NODE.forward" of every node passed, in milliseconds.
TASK_STAGE_TIMES_KEY = "stage_times_ms"
