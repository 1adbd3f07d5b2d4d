"""The panels' JavaScript: what lets it stand in one file, without the imports that files block."""

import re
from collections import Counter
from pathlib import Path

import pytest
from torchkoopman_panels.modules import asset, imports_of, in_one, in_order

from tests.panels.assets import ASSETS

SOURCES = {path.name: path.read_text("utf-8") for path in ASSETS.glob("*.js")}
DECLARED = re.compile(
    r"^(?:export )?(?:async )?(?:function\*?|const|let|var|class)\s+(\S+?)\b", re.MULTILINE
)


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_imports_names_of_modules_beside_it_and_exports_by_name(name: str) -> None:
    source = SOURCES[name]
    lines = [line for line in source.splitlines() if re.match(r"(import|export)\b", line)]
    plain = re.compile(r"export (async function|function\*?|const|let|class) \w+")
    for line in lines:
        if line.startswith("import"):
            assert re.match(r"import \{", line), f"{name}: {line}"
        else:
            assert plain.match(line), f"{name}: {line}"
    assert len(list(imports_of(source))) == sum(line.startswith("import") for line in lines)
    for needed in imports_of(source):
        assert needed in SOURCES, f"{name} imports {needed}"
    assert not re.search(r"^import \{[^}]*\bas\b", source, re.MULTILINE), name
    assert not re.search(r"^(const|let|var)\s*[\[{]", source, re.MULTILINE), name


def test_no_two_modules_have_a_name_in_common() -> None:
    names = Counter(name for source in SOURCES.values() for name in DECLARED.findall(source))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", sorted(ASSETS.iterdir()), ids=lambda path: path.name)
def test_an_asset_can_stand_in_a_page_and_fetches_nothing(path: Path) -> None:
    text = path.read_text("utf-8")
    for forbidden in ("</script", "</style", "<!--", "@import"):
        assert forbidden not in text.lower(), forbidden
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}


TREE = {
    "a.js": 'import { b } from "./b.js";\nimport {\n  c,\n  d,\n} from "./c.js";\nb(c, d);\n',
    "b.js": 'import { c } from "./c.js";\nexport function b() {\n  return c;\n}\n',
    "c.js": "export const c = 1;\nexport async function d() {}\nexport class E {}\nconst f = 2;\n",
}


def test_a_module_stands_after_all_that_it_imports() -> None:
    assert in_order("a.js", TREE.__getitem__) == ["c.js", "b.js", "a.js"]


def test_in_one_neither_imports_nor_exports() -> None:
    text = in_one("a.js", TREE.__getitem__)
    assert text == (
        "// c.js\nconst c = 1;\nasync function d() {}\nclass E {}\nconst f = 2;\n\n"
        "// b.js\nfunction b() {\n  return c;\n}\n\n// a.js\nb(c, d);\n"
    )


def test_the_tab_and_the_page_are_there() -> None:
    assert {"index.js", "report.js"} <= set(SOURCES)
    assert asset("index.js") == SOURCES["index.js"]
