"""Figures of a run for an MLflow server, over its REST API: MLflow itself is never imported."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import orjson

from wsi_pipeline.errors import ConfigError, StoreError
from wsi_pipeline.report.export import figures_of
from wsi_pipeline.report.facts import Run

EXPERIMENT = "wsi-pipeline"
PATIENCE_S = 30.0
# The server refuses longer batches (REST API, runs/log-batch).
MOST_METRICS, MOST_PARAMS = 1000, 100
_NOT_ALLOWED = re.compile(r"[^\w./ -]")


@dataclass(frozen=True, slots=True)
class Server:
    """An MLflow tracking server at `uri` (http or https)."""

    uri: str

    def __post_init__(self) -> None:
        if urlsplit(self.uri).scheme not in {"http", "https"}:
            raise ConfigError(f"--mlflow {self.uri}: give the address of a tracking server, like http://127.0.0.1:5000")

    def call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post to one end point of the REST API 2.0 and return its answer; `StoreError` names what it refused."""
        url = f"{self.uri.rstrip('/')}/api/2.0/mlflow/{path}"
        headers = {"Content-Type": "application/json"}
        request = Request(url, orjson.dumps(body), headers, method="POST")  # noqa: S310 - http(s) only, see above
        try:
            with urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310
                value = orjson.loads(answer.read() or b"{}")
        except HTTPError as error:
            with error:
                raise StoreError(f"MLflow at {self.uri} refuses {path}: {_message(error)}") from None
        except (URLError, OSError, orjson.JSONDecodeError) as error:
            raise StoreError(f"MLflow at {self.uri} cannot be reached: {getattr(error, 'reason', error)}") from None
        return value if isinstance(value, dict) else {}


def log_run(uri: str, facts: Run) -> str:
    """Log the figures of `facts` as one MLflow run of the experiment `wsi-pipeline`; returns the MLflow run's id.

    Metrics are the numbers of metrics.json by dotted name; parameters name run, model and versions; the tag `source`
    says whether the corrections were measured or simulated. Neither slide ids, raters nor paths are sent.
    """
    server = Server(uri)
    started = time.time_ns() // 1_000_000
    created = server.call(
        "runs/create",
        {
            "experiment_id": _experiment(server),
            "start_time": started,
            "run_name": facts.run_id[:16],
            "tags": [{"key": "source", "value": facts.source}, {"key": "run_id", "value": facts.run_id}],
        },
    )
    run_id = str(created["run"]["info"]["run_id"])
    metrics = [
        {"key": _NOT_ALLOWED.sub("_", key)[:250], "value": value, "timestamp": started, "step": 0}
        for key, value in figures_of(facts).items()
    ]
    params = [{"key": key, "value": value[:500]} for key, value in _parameters(facts).items()]
    for start in range(0, max(len(metrics), 1), MOST_METRICS):
        batch = metrics[start : start + MOST_METRICS]
        server.call("runs/log-batch", {"run_id": run_id, "metrics": batch, "params": _first(params, start), "tags": []})
    finished = {"run_id": run_id, "status": "FINISHED", "end_time": time.time_ns() // 1_000_000}
    server.call("runs/update", finished)
    return run_id


def _experiment(server: Server) -> str:
    found = server.call("experiments/search", {"filter": f"name = '{EXPERIMENT}'", "max_results": 1})
    known = found.get("experiments") or []
    if known:
        return str(known[0]["experiment_id"])
    return str(server.call("experiments/create", {"name": EXPERIMENT})["experiment_id"])


def _parameters(facts: Run) -> dict[str, str]:
    versions = {f"version.{name}": version for name, version in sorted(facts.versions.items())}
    return {"model": facts.model_id or "not recorded", **versions}


def _first(params: Sequence[dict[str, str]], start: int) -> list[dict[str, str]]:
    return list(params[:MOST_PARAMS]) if start == 0 else []


def _message(error: HTTPError) -> str:
    try:
        value = orjson.loads(error.read())
    except (OSError, orjson.JSONDecodeError):
        return f"status {error.code}"
    return str(value.get("message") or error.code) if isinstance(value, dict) else f"status {error.code}"
