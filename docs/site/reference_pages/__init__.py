"""The pages of reference, written from the code when the site is built: each is a function that returns Markdown.

Nothing here is part of the package that is installed; `docs/site/hooks.py` gives the pages to MkDocs.
"""

from __future__ import annotations

from collections.abc import Callable

from reference_pages import boards, command_line, configuration, formats, metrics, repository, wire

PAGES: dict[str, Callable[[], str]] = {
    "reference/command-line.md": command_line.page,
    "reference/configuration.md": configuration.page,
    "reference/records.md": formats.records,
    "reference/bundles.md": formats.bundles,
    "reference/boards.md": boards.page,
    "reference/metrics.md": metrics.page,
    "reference/wire.md": wire.page,
    "reference/models.md": repository.models,
    "contributing.md": repository.contributing,
    "changelog.md": repository.changelog,
}
"""Where each page lies in the site, and what writes it."""
