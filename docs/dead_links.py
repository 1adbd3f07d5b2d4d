"""Links within the built pages that lead to no file, or to no place in it: ``make docs`` ends here.

Sphinx warns of references that it resolves itself. This reads what a browser reads, the pages that
themes and extensions write included. Links to other sites are not followed; scripts, styles and
pictures that a page loads from there are dead, too, for it could not be read without network.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links and places."""
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        style = tag == "link" and "stylesheet" in (dict(attrs).get("rel") or "")
        self.loaded += [
            value
            for name, value in attrs
            if value and (name == "src" or (style and name == "href"))
        ]
        self.places |= {value for name, value in attrs if name in ("id", "name") and value}


def dead_links(folder: Path) -> list[str]:
    """``page: link`` of every link from a page in the folder that leads nowhere."""
    pages = {path.resolve(): Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    dead.append(f"{path.relative_to(folder.resolve())}: {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            places = pages[target].places if target in pages else None
            lost = bool(
                parts.fragment and places is not None and unquote(parts.fragment) not in places
            )
            if lost or not target.exists():
                dead.append(f"{path.relative_to(folder.resolve())}: {link}")
    return dead


if __name__ == "__main__":
    found = dead_links(Path(sys.argv[1]))
    print("\n".join(found) or "no dead links")
    sys.exit(bool(found))
