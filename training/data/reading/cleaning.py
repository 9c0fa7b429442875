"""Rules that clean texts: control characters, wrong decoding, remains of HTML. A rule may also only count."""

import html
import re
from collections.abc import Callable
from html.entities import html5

import ftfy

from training.recipe.data import CleanSettings

# Tab and line ends are kept.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|([A-Za-z][A-Za-z0-9]{1,31}));")
ESCAPED_TIMES = 3
"""Most levels of escaping that are undone, such as `&amp;lt;br&amp;gt;`: a bound on the time for one text."""
# A list of names, because `<3`, `a < b` and `<your name>` are not HTML.
TAGS = (
    "a abbr address article aside audio b big blockquote body br button caption center cite code col dd del details "
    "div dl dt em embed fieldset figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe "
    "img input ins kbd label legend li link main mark meta nav noscript ol option p picture pre q s samp section "
    "select small source span strike strong sub summary sup svg table tbody td textarea tfoot th thead time title tr "
    "tt u ul var video"
)
TAG = re.compile(rf"</?(?:{'|'.join(TAGS.split())})(?:\s[^<>]{{0,2000}})?/?>|<!--[^<>]{{0,2000}}-->", re.IGNORECASE)
HIDDEN = re.compile(r"<(script|style)\b[^<>]{0,2000}>[^<]{0,100000}</\1\s*>", re.IGNORECASE)
BLANKS = re.compile(r"[ \t]{2,}")


def clean(text: str, settings: CleanSettings) -> tuple[str, list[tuple[str, str, str]]]:
    """Apply the rules; return the text, and a triple for each rule that matched.

    The triple is (rule, before, after). A rule whose setting is not `fix` leaves the text unchanged.
    """
    found: list[tuple[str, str, str]] = []
    for name, rule in RULES.items():
        setting = getattr(settings, name)
        if setting == "off":
            continue
        mended = rule(text)
        if mended != text:
            found.append((name, text, mended))
            if setting == "fix":
                text = mended
    return text, found


def without_control_characters(text: str) -> str:
    """Remove control characters; those that separate words become a space."""
    return CONTROL.sub(lambda match: " " if match[0].isspace() else "", text) if CONTROL.search(text) else text


def decoded_again(text: str) -> str:
    """Undo a wrong decoding, such as `cafÃ©` for `café`, where ftfy is sure of it."""
    return text if text.isascii() else ftfy.fix_encoding(text)


def without_html(text: str) -> str:
    """Replace entities by their characters, and tags by spaces."""
    if "&" in text:
        for _ in range(ESCAPED_TIMES):
            if (unescaped := ENTITY.sub(_character, text)) == text:
                break
            text = unescaped
    if "<" not in text or not (TAG.search(text) or HIDDEN.search(text)):
        return text
    return BLANKS.sub(" ", TAG.sub(" ", HIDDEN.sub(" ", text))).strip()


def _character(match: re.Match[str]) -> str:
    if match[1] is not None and f"{match[1]};" not in html5:
        return match[0]
    character = html.unescape(match[0])
    return " " if character == "\xa0" else character


RULES: dict[str, Callable[[str], str]] = {
    # First, because in a wrongly decoded text a control character may be half of a letter.
    "mojibake": decoded_again,
    "control_characters": without_control_characters,
    "html": without_html,
}
