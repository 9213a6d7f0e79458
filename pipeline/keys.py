"""The keys of an item, as torchpipe spells them."""

TASK_DATA_KEY = "data"
TASK_RESULT_KEY = "result"
# The order of an image's channels, "rgb" or "bgr".
TASK_COLOR_KEY = "color"
TASK_NODE_NAME_KEY = "node_name"
# What a caller or a backend shares with all nodes: a `map` takes it along by itself.
TASK_CONTEXT_KEY = "context"
# What makes a call asynchronous; see thriftpipe.torchpipe.
TASK_EVENT_KEY = "event"
# For how many rows of a batch an item counts.
TASK_REQUEST_SIZE_KEY = "request_size"
# The part of an image that an item is about.
TASK_BOX_KEY = "_box"
# Those that only users' backends read.
TASK_INFO_KEY = "_info"
TASK_CPU_RESULT_KEY = "cpu_result"
TASK_REQUEST_KEY = "request"
TASK_REQUEST_ID_KEY = "request_id"
TASK_OUTPUT_KEY = "output"
TASK_TMP_KEY = "tmp"

# torchpipe lacks these: the results by node where a graph has several ends; what is set instead of
# `result` where an item failed; milliseconds of "NODE.queue" and "NODE.forward" of nodes passed.
TASK_RESULTS_KEY = "results"
TASK_ERROR_KEY = "error"
TASK_STAGE_TIMES_KEY = "stage_times_ms"

TASK_KEYS = {
    "TASK_DATA_KEY": TASK_DATA_KEY,
    "TASK_RESULT_KEY": TASK_RESULT_KEY,
    "TASK_NODE_NAME_KEY": TASK_NODE_NAME_KEY,
    "TASK_REQUEST_SIZE_KEY": TASK_REQUEST_SIZE_KEY,
    "TASK_BOX_KEY": TASK_BOX_KEY,
    "TASK_INFO_KEY": TASK_INFO_KEY,
    "TASK_CONTEXT_KEY": TASK_CONTEXT_KEY,
    "TASK_CPU_RESULT_KEY": TASK_CPU_RESULT_KEY,
    "TASK_REQUEST_KEY": TASK_REQUEST_KEY,
    "TASK_REQUEST_ID_KEY": TASK_REQUEST_ID_KEY,
    "TASK_OUTPUT_KEY": TASK_OUTPUT_KEY,
    "TASK_TMP_KEY": TASK_TMP_KEY,
}
"""What the names mean that a TOML file may write in place of a key; where the branches of torchpipe
differ, as v0 has it."""
