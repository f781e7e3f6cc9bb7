"""The code location."""

from b44_assets.orchestration.code_location import build_definitions
from b44_assets.settings import Settings

defs = build_definitions(Settings.load())
