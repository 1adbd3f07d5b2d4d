"""What the tab's plugin answers, and that what fails in it fails alone."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tensorboard.backend.application import TensorBoardWSGIApp
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin
from torch.utils.tensorboard import SummaryWriter
from torchkoopman_panels import SCHEMA, Document, Series, assets
from torchkoopman_tensorboard import PLUGIN_NAME, log, plugin
from torchkoopman_tensorboard.loader import SAMPLES, KoopmanLoader
from torchkoopman_tensorboard.reading import natural
from torchkoopman_tensorboard.summary import _tensor
from werkzeug.test import Client

from benchmarks.panels.drifting import drifting
from benchmarks.panels.logs import logged, write
from tests.integrations.test_tensorboard import surrogate
from tests.processes import completed

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


def provider(logdir: Path, kept: int = 0) -> MultiplexerDataProvider:
    multiplexer = EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: kept})
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(logdir))


def served(logdir: Path, kept: int | None = 0) -> Client:
    """TensorBoard, all of it but its process, with this plugin and one of its own."""
    samples = {} if kept is None else {PLUGIN_NAME: kept}
    flags = argparse.Namespace(
        logdir=str(logdir), path_prefix="", samples_per_plugin=samples, window_title=""
    )
    plugins = [KoopmanLoader(), ScalarsPlugin]
    return Client(TensorBoardWSGIApp(flags, plugins, provider(logdir, kept or 0)))


def index_of(client: Client) -> dict[str, Any]:
    answer = client.get("/data/plugin/koopman/index")
    assert answer.status_code == 200
    index: dict[str, Any] = json.loads(answer.data)
    return index


def block_of(client: Client, key: str) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
    answer = client.get("/data/plugin/koopman/block", query_string={"key": key})
    assert answer.status_code == 200, answer.data
    assert answer.content_type == "application/octet-stream"
    assert "Content-Encoding" not in answer.headers
    content = gzip.decompress(answer.data)
    length = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + length])
    planes = np.frombuffer(content[4 + length :], np.uint8).reshape(4, -1)
    values = planes.T.copy().view(">f4").reshape(*header["shape"], len(header["steps"]))
    return header, np.moveaxis(values, -1, 0)


def test_every_series_is_served_as_it_was_logged(tmp_path: Path) -> None:
    document = drifting(steps=12, modes=6, runs=("second", "first"))
    client = served(logged(document, tmp_path))
    index = index_of(client)
    assert index.keys() == document.index().keys()
    assert index["schema"] == SCHEMA
    assert index["warnings"] == []
    assert len(index["series"]) == len(document.arrays)
    for entry in index["series"]:
        about = json.dumps(entry["about"], sort_keys=True)
        arrays = document.arrays[entry["run"], entry["span"], entry["name"], about]
        header, values = block_of(client, entry["key"])
        assert header["steps"] == list(arrays)
        assert header["of"] == 12
        expected = np.stack(list(arrays.values())).astype(np.float32)
        np.testing.assert_array_equal(values, expected)


def test_what_log_writes_of_a_surrogate_is_served(tmp_path: Path) -> None:
    fit = surrogate()
    with SummaryWriter(str(tmp_path)) as writer:
        log(writer, fit, 7)
    client = served(tmp_path)
    entries = {entry["name"]: entry for entry in index_of(client)["series"]}
    assert {"spectrum", "singular_values", "r2"} <= set(entries)
    assert entries["spectrum"]["about"]["layers"] == list(fit.layers)
    header, values = block_of(client, entries["spectrum"]["key"])
    assert header["steps"] == [7]
    spectrum = fit.spectrum().eigenvalues.numpy()
    np.testing.assert_allclose(values[0, :, 0] + 1j * values[0, :, 1], spectrum, rtol=1e-6)


def test_runs_and_spans_are_sorted_by_their_numbers_and_runs_of_one_layer_stay_apart(
    tmp_path: Path,
) -> None:
    document = Document()
    for value, run in enumerate(("lr10", "lr9", "lr1")):
        for span in ("1-10", "1-9"):
            document.add(run, span, 0, [Series("losses", np.full(2, value), {"terms": ["a", "b"]})])
    client = served(logged(document, tmp_path))
    entries = index_of(client)["series"]
    assert [(each["run"], each["span"]) for each in entries] == [
        (run, span) for run in ("lr1", "lr9", "lr10") for span in ("1-9", "1-10")
    ]
    found = [block_of(client, each["key"])[1][0, 0] for each in entries]
    assert found == [2, 2, 1, 1, 0, 0]


@pytest.mark.parametrize("text", ["", "7", "a7b", "٣²"])
def test_any_text_has_a_place_in_the_order(text: str) -> None:
    assert sorted([text, "z9", "z10", "1"], key=natural).index("z9") < 4


def test_layers_that_changed_in_a_resumed_run_are_another_series(tmp_path: Path) -> None:
    document = Document()
    document.add("run", "1-9", 0, [Series("r2", np.ones(2), {"layers": ["5", "9"]})])
    document.add("run", "1-9", 10, [Series("r2", np.ones(3), {"layers": ["3", "5", "9"]})])
    client = served(logged(document, tmp_path))
    found = index_of(client)["series"]
    assert [each["about"]["layers"] for each in found] == [["5", "9"], ["3", "5", "9"]]
    assert [block_of(client, each["key"])[0]["steps"] for each in found] == [[0], [10]]


def test_later_and_strange_series_are_left_out_and_the_page_can_say_so(tmp_path: Path) -> None:
    def told(**own: Any) -> bytes:
        known = {"schema": SCHEMA, "span": "1-9", "name": "r2", "about": {}}
        return json.dumps({**known, **own}).encode()

    contents = {
        "good": told(),
        "later": told(schema=SCHEMA + 1),
        "other": told(span=3),
        "list": b"[1]",
        "earlier": b'{"layers": ["1", "9"]}',
        "none": b"",
        "bytes": b"\xff",
    }
    values = [_tensor(tag, np.ones(1), PLUGIN_NAME, each) for tag, each in contents.items()]
    index = index_of(served(write(tmp_path, {0: values})))
    assert [each["key"] for each in index["series"]] == ['[".", "koopman/good"]']
    later, strange = index["warnings"]
    assert f"later version of torchkoopman (schema {SCHEMA + 1}" in later
    assert strange.startswith("5 series of run '.' do not say what they are")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_arrives_as_it_is(tmp_path: Path, value: float) -> None:
    document = Document()
    document.add("run", "1-9", 0, [Series("r2", np.array([value, 1.0]), {"times": [value]})])
    client = served(logged(document, tmp_path))
    (entry,) = index_of(client)["series"]
    assert entry["about"] == {"times": [None]}  # JSON has no such numbers
    np.testing.assert_array_equal(block_of(client, entry["key"])[1], [[value, 1]])


def test_series_without_numbers_are_served(tmp_path: Path) -> None:
    document = Document()
    document.add("run", "1-9", 3, [Series("notes", np.zeros(0), {"notes": ["α", "b"]})])
    client = served(logged(document, tmp_path))
    (entry,) = index_of(client)["series"]
    assert entry["about"] == {"notes": ["α", "b"]}
    assert block_of(client, entry["key"])[0]["steps"] == [3]


def test_the_latest_notes_of_each_span_come_with_its_series(tmp_path: Path) -> None:
    fit = surrogate()
    with SummaryWriter(str(tmp_path)) as writer:
        for step, notes in ((7, ("α: one row\u2009left out",)), (9, ("first", "second")), (11, ())):
            log(writer, fit.with_(record=replace(fit.record, notes=notes)), step)
        writer.add_text("koopman/other/notes", "of a span without series", 9)
        writer.add_text("koopman/notes", "another's", 9)
        writer.add_text("notes", "another's", 9)
    client = served(tmp_path)
    (entry,) = (each for each in index_of(client)["series"] if each["name"] == "notes")
    assert entry["span"] == "b.9-b.2"
    assert entry["about"]["notes"] == ["At step 9: first", "At step 9: second"]
    header, values = block_of(client, entry["key"])
    assert (header["steps"], values.size) == ([9], 0)


def test_a_series_of_which_tensorboard_kept_a_sample_says_so(tmp_path: Path) -> None:
    client = served(logged(drifting(steps=30, modes=2), tmp_path), kept=20)
    for entry in index_of(client)["series"]:
        header, _ = block_of(client, entry["key"])
        assert len(header["steps"]) == 20
        assert header["of"] is None


@pytest.mark.parametrize("key", ["", "x", "[1]", '["a"]', '["a", "b", "c"]', "3", "null", "{}"])
def test_a_key_that_is_none_is_refused(tmp_path: Path, key: str) -> None:
    answer = served(tmp_path).get("/data/plugin/koopman/block", query_string={"key": key})
    assert answer.status_code == 400


def test_what_cannot_be_drawn_is_refused_by_name(tmp_path: Path) -> None:
    told = {"schema": SCHEMA, "span": "1-9", "about": {}}
    text, ragged = (json.dumps({**told, "name": name}).encode() for name in ("text", "ragged"))
    write(
        tmp_path,
        {
            0: [_tensor("text", np.array([b"a"], object), PLUGIN_NAME, text)],
            1: [_tensor("ragged", np.ones(1), PLUGIN_NAME, ragged)],
            2: [_tensor("ragged", np.ones((1, 1)), PLUGIN_NAME, ragged)],
        },
    )
    client = served(tmp_path)

    def answer(tag: str) -> tuple[int, str]:
        key = {"key": json.dumps([".", f"koopman/{tag}"])}
        found = client.get("/data/plugin/koopman/block", query_string=key)
        return found.status_code, found.text

    assert answer("text") == (
        400,
        "series 'koopman/text' of run '.' cannot be drawn: step 0 holds object instead of numbers.",
    )
    assert answer("ragged")[0] == 400
    assert "more axes" in answer("ragged")[1]
    assert answer("gone") == (404, "there is no series 'koopman/gone' in run '.' any more.")


def test_an_empty_folder_has_an_empty_index_and_an_inactive_tab(tmp_path: Path) -> None:
    client = served(tmp_path)
    assert index_of(client)["series"] == []
    listing = json.loads(client.get("/data/plugins_listing").data)
    assert listing[PLUGIN_NAME]["enabled"] is False


def test_the_tab_is_listed_and_its_files_have_their_types(tmp_path: Path) -> None:
    client = served(logged(drifting(steps=1, modes=2), tmp_path))
    listing = json.loads(client.get("/data/plugins_listing").data)[PLUGIN_NAME]
    assert listing["enabled"] is True
    assert listing["tab_name"] == "Koopman"
    path = listing["loading_mechanism"]["module_path"]
    assert client.get(path).text == assets()["index.js"]
    for name, text in assets().items():
        answer = client.get(f"/data/plugin/koopman/{name}")
        assert answer.text == text
        assert answer.mimetype == {"js": "text/javascript", "css": "text/css"}[name.split(".")[1]]


@pytest.mark.parametrize("flags", [argparse.Namespace(), argparse.Namespace(samples_per_plugin=3)])
def test_flags_of_another_tensorboard_do_not_matter(flags: argparse.Namespace) -> None:
    KoopmanLoader().fix_flags(flags)


def test_steps_that_tensorboard_keeps_are_a_thousand_unless_the_user_says_how_many() -> None:
    flags = argparse.Namespace(samples_per_plugin={})
    KoopmanLoader().fix_flags(flags)
    assert flags.samples_per_plugin == {PLUGIN_NAME: SAMPLES}
    flags.samples_per_plugin[PLUGIN_NAME] = 0
    KoopmanLoader().fix_flags(flags)
    assert flags.samples_per_plugin == {PLUGIN_NAME: 0}


def fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("part", ["__init__", "get_plugin_apps", "is_active", "_index"])
def test_what_fails_in_the_plugin_fails_alone(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin.KoopmanPlugin, part, fails)
    client = served(tmp_path)
    assert client.get("/data/plugin/scalars/tags").status_code == 200
    listing = client.get("/data/plugins_listing")
    assert listing.status_code == 200
    assert (PLUGIN_NAME in json.loads(listing.data)) == (part != "__init__")
    if part == "_index":
        with pytest.raises(RuntimeError, match="on purpose"):  # TensorBoard's server answers 500
            client.get("/data/plugin/koopman/index")
        assert client.get("/data/plugin/scalars/tags").status_code == 200


def test_tensorboard_finds_the_loader_by_the_installed_packages_entry_point() -> None:
    (found,) = (each for each in entry_points(group="tensorboard_plugins") if ours(each.value))
    assert found.load() is KoopmanLoader


def ours(value: str) -> bool:
    return value.startswith("torchkoopman")


IMPORTS = """
import sys
{before}
from torchkoopman_tensorboard.loader import KoopmanLoader
loader = KoopmanLoader()
{after}
"""
HEAVY = """
from tensorboard.plugins.base_plugin import TBContext
loader.load(TBContext())
import torchkoopman_tensorboard.folders, torchkoopman_tensorboard.__main__
print(sorted({"torch", "torchkoopman", "scipy", "sklearn", "tensorflow"} & set(sys.modules)))
"""
BROKEN = """
sys.modules.update(dict.fromkeys(
    ["torchkoopman_panels", "numpy", "torchkoopman", "torch", "torchkoopman_tensorboard.summary"]
))
"""


def printed(before: str = "", after: str = "") -> str:
    script = IMPORTS.format(before=before, after=after)
    done = completed([sys.executable, "-c", script], timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_tensorboards_process_never_loads_torch() -> None:
    assert printed(after=HEAVY) == "[]"


def test_the_loader_can_be_imported_where_all_else_is_broken() -> None:
    assert printed(before=BROKEN, after="print('there')") == "there"


STARTS = """
import json, sys, urllib.request
{before}
from tensorboard import default, program
board = program.TensorBoard(default.get_plugins())
board.configure([None, "--logdir", {logdir!r}, "--port", "0", "--load_fast", "false"])
address = board.launch()
with urllib.request.urlopen(address + "data/plugins_listing") as answer:
    print(sorted({{"koopman", "scalars"}} & set(json.load(answer))))
"""


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "broken"])
def test_tensorboard_starts_with_a_whole_install_and_with_a_broken_one(
    broken: bool, tmp_path: Path
) -> None:
    missing = "sys.modules['torchkoopman_panels'] = None" if broken else ""
    script = STARTS.format(before=missing, logdir=str(tmp_path))
    done = completed([sys.executable, "-c", script], timeout=120)
    assert done.returncode == 0, done.stderr
    found = ["scalars"] if broken else ["koopman", "scalars"]
    assert done.stdout.strip().splitlines()[-1] == str(found)
    assert ("Failed to load plugin KoopmanLoader" in done.stderr) == broken


def test_a_plugin_that_cannot_be_imported_leaves_tensorboard_without_the_tab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchkoopman_tensorboard.plugin", None)
    client = served(tmp_path)
    assert client.get("/data/plugin/scalars/tags").status_code == 200
    assert PLUGIN_NAME not in json.loads(client.get("/data/plugins_listing").data)


def test_a_plugin_takes_a_context_without_hints() -> None:
    apps = plugin.KoopmanPlugin(TBContext()).get_plugin_apps()
    assert {"/index", "/block", "/index.js"} <= set(apps)
    assert all(path.startswith("/") for path in apps)


def test_where_nobody_says_how_many_steps_are_kept_their_number_is_unknown(tmp_path: Path) -> None:
    document = drifting(steps=3, modes=2, spans=1)
    client = served(logged(document, tmp_path), kept=None)
    for entry in index_of(client)["series"]:
        assert block_of(client, entry["key"])[0]["of"] is None
