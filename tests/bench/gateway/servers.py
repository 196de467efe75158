"""The gateways that are measured: ours, and LiteLLM's proxy from an environment of its own."""

from __future__ import annotations

import http.client
import sys
import time
from pathlib import Path

import psutil

from tests import ROOT
from tests.bench.rig import Rig
from tests.support.child import ChildProcess
from tests.support.servers import free_port

PATH = "/v1/chat/completions"

LITELLM_CONFIG = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "{url}/v1", api_key: sk-bench}}
litellm_settings: {{telemetry: false, num_retries: 0, request_timeout: 600}}
"""


class Door(ChildProcess):
    """A server that answers chat completions at `url`."""

    ready_path = ""
    port = 0

    def ready(self) -> bool:
        """Whether it takes calls."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", self.ready_path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def url(self) -> str:
        """Where chat completions are asked for."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    def cpu_s(self) -> float:
        """CPU seconds of the process and its children so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self._processes())

    def rss_mb(self) -> float:
        """Memory of the process and its children."""
        return sum(one.memory_info().rss for one in self._processes()) / 1e6

    def _processes(self) -> list[psutil.Process]:
        own = psutil.Process(self.pid)
        return [own, *own.children(recursive=True)]


class Gateway(Door):
    """One process of our gateway, which serves without keys, as LiteLLM's proxy does here."""

    ready_path = "/health/ready"

    def __init__(self, bench: Rig) -> None:
        self.port = free_port()
        argv = [sys.executable, "-m", "headgate.producer.gateway", "--port", str(self.port)]
        own = {"HEADGATE_GATEWAY_OPEN": "1", "HEADGATE_GATEWAY_STREAMS": "5000"}
        env = bench.variables | own
        super().__init__(argv, log_path=bench.folder / "gateway.log", env=env, cwd=ROOT)


class LiteLLM(Door):
    """One process of LiteLLM's proxy, without database and Redis."""

    ready_path = "/health/liveliness"

    def __init__(self, bench: Rig, venv: Path) -> None:
        self.port = free_port()
        config = bench.folder / "litellm.yaml"
        config.write_text(LITELLM_CONFIG.format(url=bench.provider_url))
        argv = [venv / "bin/litellm", "--config", config, "--port", str(self.port)]
        argv += ["--host", "127.0.0.1", "--num_workers", "1"]
        env = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "PYTHONPATH": "",
        }
        log_path = bench.folder / "litellm.log"
        super().__init__(list(map(str, argv)), log_path=log_path, env=env, cwd=bench.folder)


def ready_in_s(door: Door, times: int) -> float:
    """Start the server so many times; return the median of the seconds until it took calls."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        door.start(120)
        took.append(time.perf_counter() - began)
        door.stop(30)
    return sorted(took)[times // 2]
