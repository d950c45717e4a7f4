"""Every link in the repository's Markdown leads to a file, and to a heading where it names one. Outside links are not followed."""

import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(r"(?<!!)!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")


def without_code(text):
    return CODE.sub("", FENCE.sub("", text))


def anchors(path):
    """The names that mdbook and forges give to headings."""
    text = FENCE.sub("", path.read_text())
    names = set()
    for heading in re.findall(r"^#+\s+(.*?)\s*#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        names.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return names


files = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], check=True, capture_output=True, text=True
).stdout.split()
dead = 0
for name in files:
    page = Path(name)
    if not page.exists():
        continue
    for link in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists():
            print(f"{name}: {link} leads nowhere", file=sys.stderr)
            dead += 1
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            print(f"{name}: {link}: there is no such heading", file=sys.stderr)
            dead += 1
sys.exit(1 if dead else 0)
