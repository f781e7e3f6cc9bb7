"""Where the project lives, told by whoever builds it: a fork's packages name the fork, and a build at home names no address."""

from __future__ import annotations

import os
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

HOME = "B44_PROJECT_URL"


class ProjectUrls(MetadataHookInterface):
    """Names the repository and its pages by their address, the paths as GitHub, GitLab and Forgejo have them."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the addresses to the table `project`; none where the variable is not set."""
        home = os.environ.get(HOME, "").rstrip("/")
        pages = {
            "Source": "",
            "Documentation": "/blob/main/docs/index.md",
            "Changelog": "/blob/main/CHANGELOG.md",
            "Issues": "/issues",
        }
        metadata["urls"] = {name: home + path for name, path in pages.items()} if home else {}
