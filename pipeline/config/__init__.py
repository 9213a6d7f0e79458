"""A pipeline's TOML document, or the same as a dictionary, as checked settings of its nodes.

Everything that can be known without loading a model is checked here, so that a mistake is reported
at once and by name.
"""

from pipeline.config.node_config import NodeConfig, PipelineConfig
from pipeline.config.reading import parse_config, read_config

__all__ = ["NodeConfig", "PipelineConfig", "parse_config", "read_config"]
