"""Starlette application of the service: what it answers to which route, and how it starts and ends."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from taxi.config import Settings, load_api_keys
from taxi.params import load_params
from taxi.predictions.log import PredictionLog
from taxi.serving.api_keys import ApiKeys
from taxi.serving.loader import ARMS
from taxi.serving.local_store import EMPTY, SILENT, Place, remedy
from taxi.serving.metrics import CONTENT_TYPE, LOST, QUEUED, begin_at_zero, exposition
from taxi.serving.middleware import PATHS, Gate, Rules, read_body
from taxi.serving.page import Page, page_of, unready_page
from taxi.serving.predictor import NoModel, Predictor, Shadow
from taxi.serving.reloader import Watch, freeze_garbage
from taxi.serving.responses import (
    ENDING,
    FAILED,
    GONE,
    OPERATIONS,
    TOO_SLOW,
    no_model,
    ok,
    openapi,
    problem,
    refused,
)
from taxi.serving.schemas import (
    Accepted,
    Asked,
    Model,
    Predictions,
    Status,
    Trip,
    Unacceptable,
    parse_outcomes,
    parse_trips,
)

SWITCH_SECONDS = (
    0.0005  # how long a thread that computes may keep the requests' thread waiting; Python's default is 0.005
)
BATCH_THREADS = 2
_LOG = logging.getLogger(__name__)


@dataclass
class Service:
    """The parts of one worker."""

    settings: Settings
    name: str
    rules: Rules
    predictor: Predictor
    log: PredictionLog
    shadow: Shadow
    place: Place
    watch: Watch
    batches: ThreadPoolExecutor

    async def predict(self, request: Request) -> Response:
        """Answer ``POST /predict``; several trips are computed beside the other requests."""
        seconds = self.rules.params.answer_seconds
        asked = parse_trips(await read_body(request, self.rules.params.body_bytes))
        if self.predictor.slots.champion is None:
            await self.watch.first(seconds)
        if self.predictor.slots.champion is None:
            return no_model(self.lacking())
        if isinstance(asked, Trip):
            return ok(self.predictor.one(asked))
        computing = asyncio.get_running_loop().run_in_executor(self.batches, self.predictor.many, asked.trips)
        return ok(Predictions(predictions=await asyncio.wait_for(computing, seconds)))

    async def outcomes(self, request: Request) -> Response:
        """Answer ``POST /outcomes``: taken, and written when the store takes them."""
        taken = parse_outcomes(await read_body(request, self.rules.params.body_bytes))
        self.predictor.keep_outcomes(taken)
        return ok(Accepted(accepted=len(taken)), 202)

    async def model(self, request: Request) -> Response:
        """Answer ``GET /model``: versions, experiment, registry, refusals."""
        slots, state = self.predictor.slots, self.watch.state
        about = {arm: loaded and loaded.entry for arm, loaded in vars(slots).items()}
        more = {"experiment": self.predictor.experiment, "registry": state.registry, "refused": state.refused}
        return ok(Model.model_validate({"service": self.name, **about, **more}))

    async def refresh(self, request: Request) -> Response:
        """Answer ``POST /model/refresh``: the follower will look at the aliases."""
        self.place.ask_again()
        if key := request.scope.get("user"):
            _LOG.info("API key %s asked for a look at the aliases", key.name)
        return ok(Asked(asked=True), 202)

    async def healthz(self, request: Request) -> Response:
        """Answer ``GET /healthz``: the process is alive."""
        return ok(Status(status="alive"))

    async def readyz(self, request: Request) -> Response:
        """Answer ``GET /readyz``: 200 while there is a model that answers and the server is not ending."""
        if self.rules.closing or self.predictor.slots.champion is None:
            return ENDING if self.rules.closing else no_model(self.lacking())
        return ok(Status(status="degraded" if self.watch.state.degraded else "ready"))

    def page(self, request: Request) -> Response:
        """Answer ``GET /``: the page for people; drawing it the first time takes a while, so it is done in a thread."""
        loaded, people = self.predictor.slots.champion, "text/html" in request.headers.get("accept", "")
        if loaded is None or loaded.entry is None:
            why = self.lacking()
            return _as_html(unready_page(self.name, why), 503) if people else no_model(why)
        folder = self.place.versions / loaded.entry.folder
        return _as_html(page_of(self.name, self.settings.zones, folder, len(self.rules.keys) > 0))

    def lacking(self) -> str:
        """Return why no version can answer, and what to do; callers without a key read it too."""
        state = self.watch.state
        if self.watch.failed:
            return (
                "a version was fetched and cannot be loaded, as the log says; it is fetched and loaded again: ask again"
            )
        if state.refused:
            return "what the aliases name was refused; GET /model says why"
        if state.registry == EMPTY:
            return f"the registry names no champion of {self.name} yet: {remedy(self.name)}"
        if state.registry == SILENT:
            return "the registry does not answer, and no version was fetched before: `taxi doctor` looks at it"
        return "no version of the model has been loaded yet; ask again"

    async def metrics(self, request: Request) -> Response:
        """Answer ``GET /metrics`` in Prometheus' text format."""
        QUEUED.set(self.log.in_memory)
        LOST.set(self.log.lost)
        return Response(exposition(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        """Answer ``GET /openapi.json``."""
        return JSONResponse(openapi())

    async def start(self) -> asyncio.Task[None]:
        """Load the last good versions from disk, and keep watch from then on."""
        sys.setswitchinterval(SWITCH_SECONDS)
        freeze_garbage()
        await self.watch.look()
        return asyncio.create_task(self.watch.run())

    def close(self) -> None:
        """End the threads; the shadow first, since it writes to the log, then the log, which takes what it holds to disk."""
        self.batches.shutdown()
        self.watch.close()
        self.shadow.close()
        self.log.close()


def make_service(settings: Settings, name: str, spool: Path) -> Service:
    """Put the parts of a worker together, whose predictions go to the folder ``spool``; nothing is loaded yet."""
    params = load_params(settings.root / "params.yaml")
    rules = Rules(params.serve, ApiKeys(load_api_keys()))
    log = PredictionLog(spool)
    shadow = Shadow(name, log)
    predictor, place = Predictor(name, log, shadow.add), Place(settings.server(name))
    watch = Watch(place, settings.root / "params.yaml", predictor, rules)
    batches = ThreadPoolExecutor(BATCH_THREADS, "batch")
    begin_at_zero({*PATHS, "other"}, ARMS)
    return Service(settings, name, rules, predictor, log, shadow, place, watch, batches)


def _as_html(page: Page, status: int = 200) -> Response:
    return Response(page.html, status, page.headers, "text/html")


async def _refuse(request: Request, error: Unacceptable) -> Response:
    return refused(error)


async def _no_model(request: Request, error: NoModel) -> Response:
    return no_model(str(error))


async def _explain(request: Request, error: HTTPException) -> Response:
    code = {404: "no-such-route", 405: "no-such-method"}.get(error.status_code, "failed")
    return problem(error.status_code, code, "see /openapi.json for what there is", error.headers)


def _always(response: Response) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        return response

    return answer


FAULTS: dict[Any, Any] = {
    Unacceptable: _refuse,
    HTTPException: _explain,
    NoModel: _no_model,
    TimeoutError: _always(TOO_SLOW),
    ClientDisconnect: _always(GONE),
    Exception: _always(FAILED),
}


def make_app(service: Service) -> Starlette:
    """Return the application: each route of ``OPERATIONS`` is answered by the service's method of that name."""

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        watching = await service.start()
        yield
        watching.cancel()
        service.close()

    routes = [Route(one.path, getattr(service, name), methods=[one.method]) for name, one in OPERATIONS.items()]
    app = Starlette(routes=routes, exception_handlers=FAULTS, lifespan=life)
    app.router.redirect_slashes = False
    return app


def make_gate(settings: Settings, name: str, spool: Path) -> Gate:
    """Return what a server runs: the service behind its gate."""
    service = make_service(settings, name, spool)
    return Gate(make_app(service), service.rules)
