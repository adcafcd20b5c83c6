"""What MkDocs asks while it builds the site: the pages of reference, the pictures of the model cards, the examples."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from reference_pages import PAGES, repository, structs


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what is not written by hand to the files of the site."""
    for name, write in PAGES.items():
        files.append(File.generated(config, name, content=write()))
    for card in repository.cards():
        for picture in sorted(card.parent.glob("*.png")):
            name = f"reference/{card.parent.name}-{picture.name}"
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    for example in repository.examples():
        name = str(example.relative_to(structs.ROOT))
        files.append(File.generated(config, name, abs_src_path=str(example)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to the root of the repository lead to the pages that stand for it."""
    return repository.from_the_site(markdown, page.file.src_uri)
