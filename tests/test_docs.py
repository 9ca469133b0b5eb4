"""The documents agree with the code: pages with error types, commands with the command line, variables, links."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

from flows.cli import app
from stt_engine import errors
from tasks import landings
from tasks.run_record import _ADVICE
from tasks.settings import AdvancedSettings, RunSettings

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "failures"
DOCS = [ROOT / "README.md", *sorted((ROOT / "deployments").rglob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
HEADINGS = ["Message", "What it means", "Usual causes", "What to do", "Mended when"]
GROUPS = {errors.NightscribeError, errors.RetryableError, errors.TerminalError, errors.AudioError}
"""Never raised as they are."""
NO_CLASS = {"LandedElsewhere": True}
"""Named in `tasks.landings` alone; whether it is retryable."""


def kinds() -> dict[str, bool]:
    """Name of every error that a user can meet -> whether the next run takes the file up."""
    found = {
        kind.__name__: kind.retryable
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.NightscribeError) and kind not in GROUPS
    }
    return found | NO_CLASS


def pages() -> dict[str, str]:
    return {path.stem: path.read_text() for path in PAGES.glob("*.md") if path.stem != "README"}


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_kind_of_failure_has_its_page_and_every_page_a_kind() -> None:
    assert set(pages()) == set(kinds())
    assert set(_ADVICE) <= set(pages())
    for name in NO_CLASS:
        assert f'"{name}"' in inspect.getsource(landings)


@pytest.mark.parametrize("name", sorted(kinds()))
def test_a_page_says_everything_and_is_right_about_retries(name: str) -> None:
    page = pages()[name]
    assert page.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", page, flags=re.MULTILINE) == HEADINGS
    assert all(section.strip() for section in re.split(r"^## .+$", page, flags=re.MULTILINE)), "an empty section"
    retried = re.findall(r"^Retried: (yes|no)$", page, flags=re.MULTILINE)
    assert retried == ["yes" if kinds()[name] else "no"]


def test_the_index_lists_each_page_once_and_repeats_what_it_says() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (.+) \| (yes|no) \|$", (PAGES / "README.md").read_text(), re.M)
    assert sorted(row[0] for row in rows) == sorted(pages())
    for name, target, line, retried in rows:
        assert target == name
        assert pages()[name].split("\n\n")[1:3] == [line, f"Retried: {retried}"]


@pytest.mark.parametrize("path", DOCS, ids=by_name)
def test_links_and_images_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{target} is not there"
        assert found.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(found), f"{target}: no such heading"


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(path.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shown_commands(text: str) -> Iterator[list[str]]:
    """Every `nightscribe COMMAND ...` that a reader would type, in a block or within a line, as words."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", without_code(text))]
    for line in lines:
        typed = re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?nightscribe (.+)", line)
        if typed and typed[1].strip(" .") and not line.startswith("nightscribe:"):
            yield shlex.split(typed[1], comments=True)


@pytest.mark.parametrize("path", DOCS, ids=by_name)
def test_commands_and_their_options_exist(path: Path) -> None:
    for words in shown_commands(path.read_text()):
        complaint = complaint_about(words)
        assert complaint is None, f"nightscribe {shlex.join(words)}: {complaint}"


def complaint_about(words: list[str]) -> str | None:
    command: click.Command = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return f"there is no command {name}"
        command = command.commands[name]
    known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help"}
    given = {word.partition("=")[0] for word in rest if word.startswith("-")}
    return f"there is no option {', '.join(sorted(given - known))}" if given - known else None


@pytest.mark.parametrize(
    ("typed", "wrong"),
    [
        ("run SOURCE DEST --model small", None),
        ("models fetch tiny /media/usb", None),
        ("run SOURCE DEST --modle small", "no option --modle"),
        ("rum SOURCE", "no command rum"),
        ("models steal tiny", "no command steal"),
    ],
)
def test_a_wrong_command_would_be_found(typed: str, wrong: str | None) -> None:
    complaint = complaint_about(typed.split())
    assert complaint is None if wrong is None else complaint is not None and wrong in complaint


def test_enough_commands_are_found() -> None:
    found = [words[0] for path in DOCS for words in shown_commands(path.read_text())]
    assert {"run", "doctor", "failures", "models", "transcribe"} <= set(found)
    assert len(found) > 50


@pytest.mark.parametrize("path", DOCS, ids=by_name)
def test_variables_are_read_by_somebody(path: Path) -> None:
    settings = {f"NIGHTSCRIBE_{name.upper()}" for name in RunSettings.model_fields}
    settings |= {f"NIGHTSCRIBE_ADVANCED__{name.upper()}" for name in AdvancedSettings.model_fields}
    pattern = r"NIGHTSCRIBE_[A-Z][A-Z_]*[A-Z]"
    deployed = re.findall(pattern, (ROOT / "scripts" / "deploy.py").read_text())
    table = re.findall(r"^\|.*\|$", (ROOT / "deployments" / "README.md").read_text(), flags=re.MULTILINE)
    known = settings | {*deployed, *re.findall(pattern, "\n".join(table))}
    assert set(re.findall(pattern, path.read_text())) <= known
