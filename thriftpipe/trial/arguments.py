"""What `thriftpipe try` takes."""

from __future__ import annotations

from interfaces.kinds import SWITCH, TEXT
from interfaces.options import Command, Option, options_of, picked
from service.handlers.handler_settings import HandlerSettings
from service.options.server_settings import ServerSettings

TRY = "try"
# How the service is told to run a model; what is left out is for its graph or its speed.
_OF_MODEL = (
    "labels engine precision weights mean std layout color input_size resize crop output "
    "output_activation calibration_images"
)
_OPTIONS = (
    *picked((*options_of(HandlerSettings), *options_of(ServerSettings)), _OF_MODEL, group=""),
    Option(
        "model",
        TEXT,
        "",
        "an ONNX file, or the name of a packaged model",
        "MODEL.onnx",
        is_positional=True,
        default_text="the model that the service serves by itself",
    ),
    Option("images", TEXT, None, "folder of images", "DIR", default_text="packaged photographs"),
    Option("skip_compare", SWITCH, False, "leave out the comparison, which takes a minute"),
    Option(
        "output_dir",
        TEXT,
        "results/local-try",
        "folder for the comparison's report and raw data",
        "DIR",
    ),
)
TRY_COMMAND = Command(
    "is it right for my model? an answer within five minutes",
    f"model images {_OF_MODEL} skip_compare output_dir",
    description="Try a model: show what is found in its file and where from, list images that "
    "cannot be used, and put the best three classes of five images beside those of plain "
    "onnxruntime, which gets the very same pixels. Then compare both handlers for a minute. "
    "Exit code 0 if all answers are the same, 1 if they differ or the comparison fails, 2 if the "
    "command line is wrong or the model cannot be served.",
    private=_OPTIONS,
)
