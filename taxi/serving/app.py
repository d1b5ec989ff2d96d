"""The service: what it answers to which route, how it starts and ends, and its OpenAPI description."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from taxi.config import Settings, load_api_keys
from taxi.params import load_params
from taxi.predictions.log import PredictionLog
from taxi.serving.local_store import Place
from taxi.serving.metrics import CONTENT_TYPE, LOST, QUEUED, exposition
from taxi.serving.middleware import Gate, Keys, Rules
from taxi.serving.page import page_of
from taxi.serving.predictor import NoModel, Predictor, Shadow
from taxi.serving.reloader import Watch, settle
from taxi.serving.responses import NO_MODEL, TOO_SLOW, Reply, complete, describe, ok, problem
from taxi.serving.schemas import Trips, parse_outcomes, parse_trips

SWITCH_SECONDS = (
    0.0005  # how long a thread that computes may keep the requests' thread waiting; Python's default is 0.005
)
BATCH_THREADS = 2


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

    async def predict(self, body: bytes) -> Reply:
        """Answer ``POST /predict``; several trips are computed beside the other requests."""
        asked = parse_trips(body)
        if self.predictor.slots.champion is None:
            await self.watch.first(self.rules.params.answer_seconds)
        try:
            if not isinstance(asked, Trips):
                return ok(self.predictor.one(asked))
            computing = asyncio.get_running_loop().run_in_executor(self.batches, self.predictor.many, asked.trips)
            return ok({"predictions": await asyncio.wait_for(computing, self.rules.params.answer_seconds)})
        except NoModel:
            return NO_MODEL
        except TimeoutError:
            return TOO_SLOW

    async def outcomes(self, body: bytes) -> Reply:
        """Answer ``POST /outcomes``: taken, and written when the store takes them."""
        taken = parse_outcomes(body)
        self.predictor.keep_outcomes(taken)
        return ok({"accepted": len(taken)}, 202)

    def model(self) -> dict[str, Any]:
        """Return what ``GET /model`` says: versions, experiment, registry, refusals."""
        state, slots, trial = self.watch.state, self.predictor.slots, self.predictor.experiment
        return {
            "service": self.name,
            "champion": slots.champion and slots.champion.about,
            "challenger": slots.challenger and slots.challenger.about,
            "experiment": {"mode": trial.mode, "share": trial.share} if trial else None,
            "registry": state.registry,
            "refused": [
                {name: getattr(one, name) for name in ("arm", "version", "reason", "at")} for one in state.refused
            ],
        }

    def readiness(self) -> Reply:
        """Return what ``GET /readyz`` says: 200 while there is a model that answers and the server is not ending."""
        if self.rules.closing:
            return problem(503, "closing", "the server is ending")
        if self.predictor.slots.champion is None:
            return NO_MODEL
        return ok({"status": "degraded" if self.watch.state.degraded else "ready"})

    def page(self) -> Response:
        """Return what ``GET /`` shows."""
        entry = self.watch.state.champion
        folder = entry and self.place.versions / entry.folder
        made = page_of(self.name, self.settings.zones, folder, len(self.rules.keys) > 0)
        return Response(made.html, 200, made.headers, "text/html") if made else _response(NO_MODEL)

    def numbers(self) -> bytes:
        """Return what ``GET /metrics`` says."""
        QUEUED.set(self.log.in_memory)
        LOST.set(self.log.lost)
        return exposition()

    async def start(self) -> asyncio.Task[None]:
        """Load the last good versions from disk, and keep watch from then on."""
        sys.setswitchinterval(SWITCH_SECONDS)
        settle()
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
    rules = Rules(params.serve, Keys(load_api_keys()))
    log = PredictionLog(spool)
    shadow = Shadow(name, log)
    predictor, place = Predictor(name, log, shadow.add), Place(settings.server(name))
    watch = Watch(place, settings.root / "params.yaml", predictor, rules, lambda params: params.experiment)
    batches = ThreadPoolExecutor(BATCH_THREADS, "batch")
    return Service(settings, name, rules, predictor, log, shadow, place, watch, batches)


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, dict(reply.more), reply.kind)


def make_app(service: Service) -> FastAPI:
    """Return the FastAPI application: the routes that are not busy, and the description of all."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        watching = await service.start()
        yield
        watching.cancel()
        service.close()

    app = FastAPI(
        title="taxi",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=life,
    )

    @app.exception_handler(HTTPException)
    async def explain(request: Request, error: HTTPException) -> Response:
        code = {404: "no-such-route", 405: "no-such-method"}.get(error.status_code, "failed")
        return _response(
            problem(error.status_code, code, "see /openapi.json for what there is", dict(error.headers or {}))
        )

    add_routes(app, service)
    app.openapi = complete(app, app.openapi)  # type: ignore[method-assign]
    return app


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes; the two busy ones are answered by the gate before they come here."""

    def busy(handle: Callable[[bytes], Awaitable[Reply]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return _response(await handle(await request.body()))

        return answer

    app.post("/predict", **describe("predict"))(busy(service.predict))
    app.post("/outcomes", **describe("outcomes"))(busy(service.outcomes))

    @app.get("/", **describe("page"))
    async def page() -> Response:
        return await asyncio.to_thread(service.page)

    @app.get("/model", **describe("model"))
    async def model() -> Response:
        return _response(ok(service.model()))

    @app.post("/model/refresh", **describe("refresh"))
    async def refresh() -> Response:
        service.place.ask_again()
        return _response(ok({"asked": True}, 202))

    @app.get("/healthz", **describe("healthz"))
    async def healthz() -> Response:
        return _response(ok({"status": "alive"}))

    @app.get("/readyz", **describe("readyz"))
    async def readyz() -> Response:
        return _response(service.readiness())

    @app.get("/metrics", **describe("metrics"))
    async def metrics() -> Response:
        return Response(service.numbers(), media_type=CONTENT_TYPE)

    @app.get("/openapi.json", **describe("openapi"))
    async def openapi() -> Response:
        return _response(ok(app.openapi()))


def make_gate(settings: Settings, name: str, spool: Path) -> Gate:
    """Return what a server runs: the service behind its gate."""
    service = make_service(settings, name, spool)
    hot = {("POST", "/predict"): service.predict, ("POST", "/outcomes"): service.outcomes}
    return Gate(make_app(service), hot, service.rules)
