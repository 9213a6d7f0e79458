"""What may stand between a model's output and its scores."""

AUTO, SOFTMAX, SIGMOID, NONE = "auto", "softmax", "sigmoid", "none"
OUTPUT_ACTIVATIONS = (AUTO, SOFTMAX, SIGMOID, NONE)
