"""Names that somebody may give a task, a class, a file, a branch or a training, and what must not become of them."""

import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt

# Each is a file name on Linux: no slash, no NUL.
NAMES = {
    "fence": "a\n```\n# owned\n@everyone",
    "tilde fence": "~~~\nx",
    "long backticks": "``````` x ``",
    "backtick ends": "`a`",
    "newline": "line one\nline two",
    "carriage return": "overwritten\rinnocent",
    "tab": "a\tb",
    "ansi": "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "c1": "a\x9b31mb\x85c",
    "delete": "a\x7fb\x08\x08c",
    "right to left": "safe\u202egnp.exe\u202c",
    "isolates": "\u2066a\u2069\u061cb\u200fc",
    "zero width": "in\u200bvis\u2060ible\ufeff",
    "soft hyphen": "a\u00adb",
    "hangul filler": "\u3164\u115f",
    "tags": "a\U000e0041\U000e007f",
    "line separators": "a\u2028b\u2029c",
    "not text": "caf\udce9",
    "unassigned": "a\u0378b\U000e0fffc",
    "private": "a\ue000b",
    "script": "<script>document.title='owned'<\x2fscript>".replace("/", "\u2215"),
    "image": "<img src=x onerror=\"document.title='owned'\">",
    "comment": "a <!-- b --> c &lt; &amp; &#64;x",
    "link": "[l](javascript:x)",
    "reference": "[a][b] [c]: d [^1]",
    "picture": "![p](x.png)",
    "autolink": "<mailto:a@b.de>",
    "address": "http:example.org www.example.org",
    "mail": "a@example.org",
    "mention": "@name (@org) x@y",
    "issue": "#1 GH-1 gh-2 owner#1 (#3), !4 JIRA-5",
    "hash": "deadbeef 0123456789abcdef0123456789abcdef01234567 DEADBEEF1.",
    "emoji": ":smile: (:tada:)",
    "mathematics": "$x^2$ $$y$$ $`z`$",
    "emphasis": "*a* **b** _c_ __d__ ~~e~~ a_*b*_c",
    "table": "a|b||c\\|d",
    "backslashes": "a\\b \\* c\\",
    "list": "- a",
    "numbered": "1. a",
    "heading": "# a",
    "underline": "===",
    "quote": "> a",
    "rule": "---",
    "mermaid": '%%{init: {"theme": "dark"}}%%',
    "mermaid quote": 'a"] end; x --> y',
    "quotes": 'it\'s "quoted" «so»',
    "path": "..\\..\\x",
    "spaces": "  a   b ",
    "dots": "...",
    "long": "x" * 200,
    "chinese": "中文任务",
    "persian": "می\u200cخواهم",
    "family": "👩\u200d👩\u200d👧",
    "accents": "e\u0301tude",
    "template": "{{ 7 * 7 }} {% raw %}",
    "percent": "%s %(x)s {0}",
}
FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e0fff]"
)
# What GitHub and GitLab look for in text that is not code.
ALIVE = re.compile(
    r"(?i:(?:https?|ftp|mailto|xmpp|javascript):\S|www\.\w)|(?<![\w`])@\w|\w@\w[\w-]*\.\w"
    r"|(?<![\w&])[#!&$%~]\w|(?i:\bGH-\d|\b[0-9a-f]{7,40}\b)|\b[A-Z]{2,}-\d|:[\w+-]+:|\$"
)
TAGS = {
    "p", "table", "thead", "tbody", "tr", "th", "td", "strong", "code", "pre", "h1", "h2", "h3", "ul", "li", "details",
    "summary", "sub",
}  # fmt: skip


class Page(HTMLParser):
    """What a reader sees: the tags, and the text of what is code and what is not."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.plain: list[str] = [""]
        self.code: list[str] = []
        self.cells: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._open.append(tag)
        assert set(dict(attrs)) <= {"style", "class", "open"}, attrs
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "code":
            self.code.append("")
            self.plain.append("")  # another node: nothing is found across it

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "td" in self._open or "th" in self._open:
            self.cells[-1] += data
        if "code" in self._open or "pre" in self._open:
            self.code[-1] += data
        else:
            self.plain.append(data)

    @property
    def text(self) -> str:
        return "".join(self.plain)


def rendered(markdown: str) -> Page:
    """As GitHub renders it, before it looks for mentions and references."""
    return Page(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))


def check_dead(markdown: str) -> Page:
    """Nothing in it is a link, a mention, a picture, HTML of others, or a character that is not seen."""
    assert not FORBIDDEN.search(markdown.replace("\n", "")), FORBIDDEN.findall(markdown.replace("\n", ""))
    page = rendered(markdown)
    assert set(page.tags) <= TAGS, set(page.tags) - TAGS
    for node in page.plain:
        assert not ALIVE.search(node), (ALIVE.search(node), node)
    return page
