"""The pages of errors: all that the package raises and warns of belongs to one entry of them.

In an HTML comment each entry has some words of the messages that it covers. Where several entries
have words of a message, the longest of them decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.raised import GAP, Message, messages_of, modules

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("errors_*.md"))
ENTRY = re.compile(r"^## (?P<title>.+?)\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
COVERS = re.compile(r"<!-- covers:\n(.*?)-->", re.DOTALL)
SHOWN = re.compile(
    r"Traceback \(most recent call last\):\n    \.\.\.\n(.*?)(?=^>>> |^```)",
    re.MULTILINE | re.DOTALL,
)
APART = {
    (
        "integrations/torchkoopman_tensorboard/__init__.py",
        "AttributeError(f'module {__name__!r} has no attribute {name!r}')",
    ): "as Python says it",
    (
        "torchkoopman/storage/tensor_files.py",
        "OSError(int(number[1]), os.strerror(int(number[1])), str(path))",
    ): "as the system says it; storage/whole.py makes a message of it",
    ("torchkoopman/running/together.py", "ValueError(every[0][0])"): "as a process says it",
    ("torchkoopman/graphs/exported.py", "RuntimeError(str(error))"): "as torch says it",
    (
        "torchkoopman/observe/pairing.py",
        "ValueError(forward.flow.refusal(self._reader.gather))",
    ): "in the entry 'Each process holds a part': made in observe/shards.py, layer by layer",
    ("torchkoopman/observe/processes.py", "ValueError(refusal)"): "as another process says it",
    (
        "torchkoopman/observe/processes.py",
        "kinds[refusal[0]](f'process {rank}: {refusal[1]}')",
    ): "as another process says it",
    (
        "torchkoopman/observe/views.py",
        "ValueError(f'layer {layer!r}: {error}')",
    ): "what the layout says, with the layer's name before it",
    ("torchkoopman/surgery/swap.py", "next(iter(failures.values()))"): "as the one way says it",
    ("torchkoopman/surgery/switching.py", "AttributeError('training')"): "as Python says it",
    ("torchkoopman/surgery/transcript.py", "Failed(number)"): "caught by who runs the calls",
    (
        "torchkoopman/surgery/transcript.py",
        "Failed(len(examples) - 1)",
    ): "caught by who runs the calls",
}
"""Raised without words of our own, or with those of another refusal: file, what is raised, why."""


@dataclass(frozen=True)
class Entry:
    """One family of messages on the pages."""

    page: str
    title: str
    text: str
    words: tuple[str, ...]

    def nearness(self, message: Message) -> int:
        """Length of the longest of its words that the message has; 0 if it has none."""
        return max((len(words) for words in self.words if matches(words, message.text)), default=0)


def matches(words: str, message: str) -> bool:
    """Whether a message has these words, with anything where they have a gap."""
    place = 0
    for part in words.split(GAP):
        found = message.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return True


@cache
def entries() -> list[Entry]:
    found = []
    for page in PAGES:
        for entry in ENTRY.finditer(page.read_text()):
            covers = COVERS.search(entry["text"])
            words = tuple(covers[1].splitlines()) if covers else ()
            found.append(Entry(page.name, entry["title"], entry["text"], words))
    return found


@cache
def messages() -> list[Message]:
    return [
        message
        for module in modules()
        for message in messages_of(module)
        if (message.where.split(":")[0], message.raised) not in APART
    ]


def test_every_message_belongs_to_one_entry() -> None:
    every, wrong = entries(), []
    for message in messages():
        near = {f"{each.page}, {each.title!r}": each.nearness(message) for each in every}
        titles = [title for title, length in near.items() if 0 < length == max(near.values())]
        if len(titles) != 1:
            of = f"belongs to several: {'; '.join(titles)}" if titles else "has no entry"
            wrong.append(f"{message.where} {of}: {message.text}")
    assert not wrong, (
        "add it to docs/errors_*.md, some of its words to the 'covers' of one entry or a new one:\n"
        + "\n".join(wrong)
    )


def test_the_words_of_every_entry_are_those_of_a_message() -> None:
    texts = [message.text for message in messages()]
    idle = [
        f"{entry.page}, {entry.title!r}: {words!r}"
        for entry in entries()
        for words in entry.words or ("no 'covers' at all",)
        if not any(matches(words, text) for text in texts)
    ]
    assert not idle, "take these words out of docs/errors_*.md, nothing says them:\n" + "\n".join(
        idle
    )


def test_every_entry_shows_an_error_and_what_to_do() -> None:
    silent = [
        f"{entry.page}, {entry.title!r}"
        for entry in entries()
        if not ("Traceback (most recent call last):" in entry.text or "# not run: " in entry.text)
        or not ("# right" in entry.text or "then: " in entry.text)
    ]
    assert not silent, silent


def test_the_errors_that_an_entry_shows_are_its_own() -> None:
    strange = [
        f"{entry.page}, {entry.title!r} shows: {message}"
        for entry in entries()
        for message in (" ".join(shown[1].split()) for shown in SHOWN.finditer(entry.text))
        if not any(matches(words, message) for words in entry.words)
    ]
    assert not strange, "\n".join(strange)


def test_what_is_apart_is_raised() -> None:
    raised = {
        (message.where.split(":")[0], message.raised)
        for module in modules()
        for message in messages_of(module)
    }
    assert not APART.keys() - raised


def test_every_page_of_errors_is_in_the_list() -> None:
    listed = (ROOT / "docs" / "errors.md").read_text()
    assert PAGES
    assert all(f"({page.name})" in listed for page in PAGES)


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("raise ValueError('plain')", ["plain"]),
        ("raise ValueError(f'of {name!r}: ' 'more')", ["of …: more"]),
        ("raise ValueError('a ' + WORDS)", ["a constant"]),
        ("raise ValueError(told(1))", ["first", "second …"]),
        ("why = 'one'\n    raise ValueError(why)", ["one"]),
        ("raise ValueError('x' if name else 'y')", ["x", "y"]),
        ("raise ValueError(unknown)", ["…"]),
        ("warnings.warn(f'of {name!r}: ' 'more', RuntimeWarning, stacklevel=2)", ["of …: more"]),
    ],
)
def test_a_message_is_read_out_of_the_source(
    source: str, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.raised.ROOT", tmp_path)
    told = "def told(n):\n    if n:\n        return 'first'\n    return f'second {n}'\n"
    file = tmp_path / f"{abs(hash(source))}.py"
    file.write_text(f"WORDS = 'constant'\n{told}\ndef refuse(name):\n    {source}\n")
    assert sorted(message.text for message in messages_of(file.name)) == texts


def test_words_match_with_anything_in_their_gaps() -> None:
    assert matches("has no layer …; nearest", "Net has no layer …; nearest: ….")
    assert matches("takes …of", "it takes one\nof two")
    assert not matches("has no layer (", "Net has no layer …")
