"""The tab "Koopman": TensorBoard's side of it, an index of all series and the numbers of each."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.context import RequestContext
from tensorboard.data.provider import RunTagFilter
from tensorboard.plugins import base_plugin
from torchkoopman_panels import SCHEMA, assets, pack
from werkzeug import wrappers

from torchkoopman_tensorboard import PLUGIN_NAME
from torchkoopman_tensorboard.notes import TEXT, notes_in, plugin_of, without_numbers
from torchkoopman_tensorboard.reading import arrays_in, series_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ALL = 2**31 - 1
"""So many of the steps that TensorBoard keeps go to the browser."""
TYPES = {"js": "text/javascript", "css": "text/css"}


class KoopmanPlugin(base_plugin.TBPlugin):  # type: ignore[misc]
    """Serves the panels, and what ``log`` wrote, through whichever loader TensorBoard runs."""

    plugin_name = PLUGIN_NAME

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._provider = context.data_provider
        self._kept: int | None = (context.sampling_hints or {}).get(PLUGIN_NAME)

    def get_plugin_apps(self) -> Mapping[str, Callable[..., Any]]:
        """Path below ``data/plugin/koopman`` → what answers."""
        answers: dict[str, Callable[[wrappers.Request], Any]] = {
            f"/{name}": partial(_asset, name, text) for name, text in assets().items()
        }
        answers |= {"/index": self._index, "/block": self._block}
        return {path: wrappers.Request.application(answer) for path, answer in answers.items()}

    def is_active(self) -> bool:
        """Whether anything is logged; where TensorBoard knows, it does not ask."""
        return any(self._listed(RequestContext(), "").values())

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The tab's name, and the module that draws it."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Koopman")

    def _listed(self, context: RequestContext, experiment: str) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self._provider.list_tensors(
            context, experiment_id=experiment, plugin_name=PLUGIN_NAME
        )
        return found

    def _texts(self, context: RequestContext, experiment: str) -> Mapping[str, Mapping[str, Any]]:
        """Run → tag → the notes among all texts."""
        asked = {"experiment_id": experiment, "plugin_name": TEXT}
        listed = self._provider.list_tensors(context, **asked)
        tags = [tag for texts in listed.values() for tag in texts if plugin_of(tag) == TEXT]
        if not tags:
            return {}
        chosen = RunTagFilter(tags=tags)
        found: Mapping[str, Mapping[str, Any]] = self._provider.read_tensors(
            context, downsample=ALL, run_tag_filter=chosen, **asked
        )
        return found

    def _index(self, request: wrappers.Request) -> Any:
        """What there is, in the form of ``Document.index()``; a ``key`` is for :meth:`_block`."""
        series, warnings = series_in(self._listed(*_asked(request)))
        series += notes_in(self._texts(*_asked(request)), series)
        index = {
            "schema": SCHEMA,
            "title": "",
            "axis": "step",
            "labels": {},
            "series": [
                {
                    "key": json.dumps([each.run, each.tag]),
                    "run": each.run,
                    "span": each.span,
                    "name": each.name,
                    "about": each.about,
                }
                for each in series
            ],
            "warnings": warnings,
        }
        return http_util.Respond(request, json.dumps(index), "application/json")

    def _block(self, request: wrappers.Request) -> Any:
        """The numbers of one series, packed."""
        refuse = partial(http_util.Respond, request, content_type="text/plain")
        try:
            run, tag = map(str, json.loads(request.args.get("key", "")))
        except (ValueError, TypeError):
            return refuse("key= is none that the index gives.", code=400)
        context, experiment = _asked(request)
        read = self._provider.read_tensors(
            context,
            experiment_id=experiment,
            plugin_name=plugin_of(tag),
            downsample=ALL,
            run_tag_filter=RunTagFilter([run], [tag]),
        )
        data = read.get(run, {}).get(tag, [])
        if not data:
            return refuse(f"there is no series {tag!r} in run {run!r} any more.", code=404)
        try:
            arrays = (without_numbers if plugin_of(tag) == TEXT else arrays_in)(data)
        except ValueError as error:
            return refuse(f"series {tag!r} of run {run!r} cannot be drawn: {error}", code=400)
        sampled = self._kept is None or 0 < self._kept <= len(data)
        return http_util.Respond(request, pack(arrays, sampled=sampled), "application/octet-stream")


def _asset(name: str, text: str, request: wrappers.Request) -> Any:
    return http_util.Respond(request, text, TYPES[name.rpartition(".")[2]])


def _asked(request: wrappers.Request) -> tuple[RequestContext, str]:
    """On whose behalf, and the experiment."""
    environ = request.environ
    return plugin_util.context(environ), plugin_util.experiment_id(environ)
