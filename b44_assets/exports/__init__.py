"""Reading Base44 exports: from a folder of files to Arrow batches of text, whatever the dialect."""

from b44_assets.exports.discovery import Survey, discover, survey
from b44_assets.exports.model import (
    ENDS_WITHIN,
    NOT_CLOSED,
    Batch,
    Dialect,
    ExportFile,
    ExportReader,
    Lines,
    Refused,
    Whole,
)
from b44_assets.exports.names import IdWatch
from b44_assets.exports.opening import open_export

__all__ = [
    "ENDS_WITHIN",
    "NOT_CLOSED",
    "Batch",
    "Dialect",
    "ExportFile",
    "ExportReader",
    "IdWatch",
    "Lines",
    "Refused",
    "Survey",
    "Whole",
    "discover",
    "open_export",
    "survey",
]
