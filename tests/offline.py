"""What would make a page ask for another file, or leave a reader out."""

import re
from html.parser import HTMLParser
from pathlib import Path


def offline_problems(page: str | Path) -> list[str]:
    """What would make a page ask for another file, or leave a reader out: addresses it fetches, images without alt text.

    Links to other pages are no problem. An empty list is what a finished page has.
    """
    scan = _Scan()
    scan.feed(Path(page).read_text(encoding="utf-8"))
    scan.close()
    return scan.problems


class _Scan(HTMLParser):
    def __init__(self):
        super().__init__()
        self.problems: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self._inside = tag
        fetched = [values.get(name, "") for name in ("src", "srcset", "poster", "data", "xlink:href")]
        if tag in ("link", "use", "image", "base"):
            fetched.append(values.get("href", ""))
        for address in fetched:
            if address and not address.startswith(("data:", "#")):
                self.problems.append(f"<{tag}> asks for {address}")
        self._styles(values.get("style", ""))
        alt = values.get("alt", "").strip()
        if tag == "img" and (not alt or alt == "No description has been provided for this image"):  # nbconvert's filler
            self.problems.append("an image has no alt text")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "style":
            self._styles(data)
        elif self._inside == "script" and (found := re.search(r"(https?:)?//[\w.-]+\.\w+[^\s'\"]*", data)):
            self.problems.append(f"a script mentions {found.group()}")

    def _styles(self, text: str):
        for address in re.findall(r"url\(\s*['\"]?([^)'\"]+)|@import\s+['\"]([^'\"]+)", text):
            if not "".join(address).startswith(("data:", "#")):
                self.problems.append(f"a style asks for {''.join(address)}")
