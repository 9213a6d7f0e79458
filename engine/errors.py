"""The error of engines and models."""

from __future__ import annotations


class EngineError(Exception):
    """A model, engine or setting that cannot work; the message says what would."""


class MissingOnHostError(EngineError):
    """What would work elsewhere: this host lacks a package, a GPU or instructions of its CPU."""
