"""mend_book.py BOOK: every link of the built book leads to a file.

Pages of the repository that are chapters too (ARCHITECTURE.md, CONTRIBUTING.md) write their links from the repository's root, and mdbook takes every
.md for a chapter. Those links are mended: BOOK is a folder of the repository's root, so that ../ leads to its files.
"""

import re
import sys
from pathlib import Path

book = Path(sys.argv[1])
root = book.parent
dead = 0


def candidates(page, path):
    """The path as it is, as a file of the repository, and as one written from its root."""
    up = "../" * (len(page.relative_to(book).parts) - 1)
    for base in ("", f"{up}../", f"{up}../docs/"):
        yield base + path
        yield base + re.sub(r"\.html$", ".md", path)
    # A page of docs/ that a file of the root links to.
    yield up + path.removeprefix("docs/")


for page in book.rglob("*.html"):
    if page.name in ("print.html", "toc.html", "404.html"):
        continue

    def mend(match):
        global dead
        path, hash_, anchor = match[2].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        for candidate in candidates(page, path):
            if (page.parent / candidate).exists():
                return f'{match[1]}="{candidate}{hash_}{anchor}"'
        print(f"{page.relative_to(root)}: {match[2]} leads nowhere", file=sys.stderr)
        dead += 1
        return match[0]

    text = page.read_text()
    mended = re.sub(r'\b(href|src)="([^"]*)"', mend, text)
    if mended != text:
        page.write_text(mended)
sys.exit(1 if dead else 0)
