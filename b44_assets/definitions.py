"""The code location."""

from b44_assets.config.settings import Settings
from b44_assets.orchestration.code_location import build_definitions

defs = build_definitions(Settings.load(), reload=Settings.load)
