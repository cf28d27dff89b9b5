"""Puts the pages for developers, which lie beside this file, into the site."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FOLDER = Path(__file__).parent
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "LIFE_OF_RSQRT.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages under names in lower case, as the others have, and the picture."""
    for page in PAGES:
        text = (FOLDER / page).read_text("utf-8")
        for other in PAGES:
            text = text.replace(f"]({other})", f"]({other.lower()})")
        files.append(File.generated(config, page.lower(), content=text))
    picture = (FOLDER / "rooms.svg").read_bytes()
    files.append(File.generated(config, "rooms.svg", content=picture))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links to these pages, which are right in the repository, to their place in the site."""
    for other in PAGES:
        markdown = markdown.replace(f"](../{other})", f"]({other.lower()})")
    return markdown
