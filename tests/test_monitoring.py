"""The dashboard and the alerts fit what a relay says of itself."""

import http.client
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from harness import PATIENCE, LineReader, RelayProcess, require_tool

import relayd

MONITORING = Path(relayd.__file__).parent / "monitoring"
ALERTS = (MONITORING / "alerts.yml").read_text()
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())

PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}

RULES = dict(re.findall(r"- alert: (\w+)\n(.*?)(?:\n\n|\Z)", ALERTS, re.DOTALL))
"""What each alert's rule says, by its name."""

TLS_METRICS = {"relayd_certificate_expiry_timestamp_seconds"}
"""What only a relay that speaks TLS says."""

LABELS_OF_PROMETHEUS = {"job", "instance"}


def expression(rule: str) -> str:
    """Return the expression of an alert's rule."""
    (text,) = re.findall(r"^ +expr: (?:>-\n)?(.*?)\n +for:", rule, re.MULTILINE | re.DOTALL)
    return " ".join(text.split())


def substituted(text: str) -> str:
    """Put in what Grafana puts in."""
    return text.replace("$__rate_interval", "1m").replace("$instance", ".+")


ALERT_EXPRESSIONS = [expression(rule) for rule in RULES.values()]
PANEL_EXPRESSIONS = [
    substituted(target["expr"]) for panel in PANELS.values() for target in panel["targets"]
]


def names(text: str) -> tuple[set[str], set[str]]:
    """Return the metrics and the labels that an expression names."""
    text = re.sub(r'"[^"]*"', '""', text)
    labels = set(re.findall(r"(\w+)[=!]~?\"", text))
    for group in re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", text):
        labels |= set(re.findall(r"\w+", group))
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(?:by|without|on|ignoring) \([^)]*\)", " ", text)
    return set(re.findall(r"\b[a-z_]\w*\b(?! *\()", text)), labels


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    """A relay with an operator's port."""
    with RelayProcess("--admin-port", "0") as relay:
        yield relay


@pytest.fixture(scope="module")
def target(relay: RelayProcess) -> str:
    """Where its operator's port is."""
    (found,) = relay.log.wait_for(r"operator's port on (127\.0\.0\.1:\d+)")
    return found[1]


def get(where: str, path: str) -> bytes:
    """Get a path by plain HTTP."""
    connection = http.client.HTTPConnection(where, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return body
    finally:
        connection.close()


def test_names(target: str) -> None:
    """Every metric and label that an expression names is one of a relay that has just started."""
    said: dict[str, set[str]] = {}
    for name, labels in re.findall(
        r"^(\w+)(?:\{(.*)\})? \S+$", get(target, "/metrics").decode(), re.MULTILINE
    ):
        said.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    for text in (*ALERT_EXPRESSIONS, *PANEL_EXPRESSIONS):
        metrics, labels = names(text)
        metrics -= {"up"}
        assert metrics <= said.keys() | TLS_METRICS, text
        known = set().union(*(said.get(metric, set()) for metric in metrics))
        assert labels <= known | LABELS_OF_PROMETHEUS, text


def test_reasons(target: str) -> None:
    """The reasons that the alerts tell apart are reasons of a relay."""
    reasons = re.findall(r'relayd_refusals_total\{reason="(\w+)"', get(target, "/metrics").decode())
    ((no_room,), (others,)) = (
        re.findall(rf'reason{operator}"(.*?)"', ALERTS) for operator in ("=~", "!~")
    )
    told = {reason for reason in reasons if re.fullmatch(no_room, reason)}
    assert told == set(no_room.split("|"))
    assert told | {"draining"} == {reason for reason in reasons if re.fullmatch(others, reason)}


def test_every_alert_helps() -> None:
    """Every alert waits, has a severity, sums up and says what to do."""
    assert len(RULES) == ALERTS.count("- alert:")
    for rule in RULES.values():
        assert re.search(r"^ +for: \d+[mh]$", rule, re.MULTILINE)
        assert re.search(r"^ +severity: (critical|warning)$", rule, re.MULTILINE)
        assert re.search(r"^ +summary: .*\{\{ \$labels.instance \}\}", rule, re.MULTILINE)
        _, _, description = rule.partition("description: >-\n")
        assert len(description) > 150


def test_rules_are_valid(tmp_path: Path) -> None:
    """Prometheus takes the rules, and the dashboard's expressions."""
    promtool = require_tool("promtool")
    rules = [{"record": "x", "expr": text} for text in PANEL_EXPRESSIONS]
    panels = tmp_path / "panels.yml"
    panels.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    for file in (MONITORING / "alerts.yml", panels):
        check = subprocess.run(
            [promtool, "check", "rules", "--lint=none", file], capture_output=True, text=True
        )
        assert check.returncode == 0, check.stdout + check.stderr


def steady(value: float) -> str:
    """Write a series that stays as it is for two hours, a minute apart."""
    return f"{value}x120"


def rising(per_second: float) -> str:
    """Write a counter that rises for two hours, a minute apart."""
    return f"0+{per_second * 60:g}x120"


LATE = {"0.1": 0, "0.25": 0, "1": 1.0, "+Inf": 1.0}
"""Frames or turns of the loop a second, by the time that they took at most."""

TROUBLES: dict[str, dict[str, str]] = {
    "RelaydDown": {'up{job="relayd"}': steady(0)},
    "RelaydRestarts": {'process_start_time_seconds{job="relayd"}': rising(1)},
    "RelaydEventLoopBlocked": {
        f'relayd_event_loop_lag_seconds_bucket{{le="{le}"}}': rising(n) for le, n in LATE.items()
    },
    "RelaydCpuFull": {'process_cpu_seconds_total{job="relayd"}': rising(0.9)},
    "RelaydConnectionsNearLimit": {
        "relayd_connections": steady(95),
        "relayd_connections_limit": steady(100),
    },
    "RelaydFilesNearLimit": {
        'process_open_fds{job="relayd"}': steady(95),
        'process_max_fds{job="relayd"}': steady(100),
    },
    "RelaydTurnsClientsAway": {'relayd_refusals_total{reason="too_many_viewers"}': rising(0.2)},
    "RelaydManyRefusals": {'relayd_refusals_total{reason="stream_not_found"}': rising(2)},
    "RelaydViewersLoseFrames": {
        'relayd_frames_dropped_total{reason="late"}': rising(6),
        'relayd_frames_dropped_total{reason="buffer"}': rising(0),
        "relayd_frames_sent_total": rising(94),
    },
    "RelaydLagHigh": {
        f'relayd_frame_lag_seconds_bucket{{le="{le}"}}': rising(n) for le, n in LATE.items()
    },
    "RelaydCertificateExpires": {
        "relayd_certificate_expiry_timestamp_seconds": steady(3 * 86400),
    },
    "RelaydCertificateExpired": {"relayd_certificate_expiry_timestamp_seconds": steady(3600)},
}
"""What each alert is for, as series; they begin at the time 0."""

CALM = {
    'up{job="relayd"}': steady(1),
    'process_start_time_seconds{job="relayd"}': steady(1),
    'relayd_event_loop_lag_seconds_bucket{le="0.001"}': rising(1),
    'relayd_event_loop_lag_seconds_bucket{le="+Inf"}': rising(1),
    'process_cpu_seconds_total{job="relayd"}': rising(0.5),
    "relayd_connections": steady(50),
    "relayd_connections_limit": steady(100),
    'process_open_fds{job="relayd"}': steady(50),
    'process_max_fds{job="relayd"}': steady(100),
    'relayd_refusals_total{reason="full"}': rising(0),
    'relayd_refusals_total{reason="stream_not_found"}': rising(0.1),
    'relayd_refusals_total{reason="draining"}': rising(100),
    'relayd_frames_dropped_total{reason="late"}': rising(1),
    "relayd_frames_sent_total": rising(99),
    'relayd_frame_lag_seconds_bucket{le="0.005"}': rising(100),
    'relayd_frame_lag_seconds_bucket{le="+Inf"}': rising(100),
    "relayd_certificate_expiry_timestamp_seconds": steady(30 * 86400),
}


def test_alerts_fire(tmp_path: Path) -> None:
    """Each alert fires in the trouble that it is for, and none in calm."""
    promtool = require_tool("promtool")
    assert TROUBLES.keys() == RULES.keys()

    def case(series: dict[str, str], *expected: str) -> dict[str, Any]:
        samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in expected]
        query = 'count by (alertname) (ALERTS{alertstate="firing"})'
        return {
            "interval": "1m",
            "input_series": [{"series": name, "values": v} for name, v in series.items()],
            "promql_expr_test": [{"expr": query, "eval_time": "100m", "exp_samples": samples}],
        }

    also = {"RelaydCertificateExpired": ["RelaydCertificateExpires"]}
    cases = [case(series, name, *also.get(name, [])) for name, series in TROUBLES.items()]
    tests = tmp_path / "tests.yml"
    rules = str(MONITORING / "alerts.yml")
    tests.write_text(json.dumps({"rule_files": [rules], "tests": [case(CALM), *cases]}))
    test = subprocess.run([promtool, "test", "rules", tests], capture_output=True, text=True)
    assert test.returncode == 0, test.stdout + test.stderr


def test_dashboard() -> None:
    """The dashboard asks for its data source, and its panels lie side by side."""
    (source,) = DASHBOARD["__inputs"]
    assert (source["name"], source["pluginId"]) == ("DS_PROMETHEUS", "prometheus")
    assert DASHBOARD["id"] is None
    needed = {entry["id"] for entry in DASHBOARD["__requires"] if entry["type"] == "panel"}
    assert {panel["type"] for panel in PANELS.values()} == needed
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for holder in (panel, *panel["targets"]):
            assert holder["datasource"] == {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """Run a Prometheus that scrapes a relay each second; give where it is."""
    config = folder / "prometheus.yml"
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "alerts.yml")],
        "scrape_configs": [{"job_name": "relayd", "static_configs": [{"targets": [target]}]}],
    }
    config.write_text(json.dumps(settings))
    options = {
        "--config.file": str(config),
        "--storage.tsdb.path": str(folder / "data"),
        "--web.listen-address": "127.0.0.1:0",
    }
    command = [require_tool("prometheus"), *(f"{name}={value}" for name, value in options.items())]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            log = LineReader(process.stderr)
            (found,) = log.wait_for(r"Listening on.* address=(127\.0\.0\.1:\d+)")
            log.wait_for("Server is ready")
            yield found[1]
        finally:
            process.kill()


def test_every_panel_shows_something(target: str, tmp_path: Path) -> None:
    """With a relay at which nothing has happened yet, no panel but that of TLS is empty, and
    every alert can be judged."""
    with prometheus(target, tmp_path) as where:

        def ask(path: str) -> Any:
            return json.loads(get(where, f"/api/v1/{path}"))["data"]

        def query(text: str) -> list[Any]:
            found: list[Any] = ask(f"query?query={quote(text)}")["result"]
            return found

        def health() -> dict[str, str]:
            (group,) = ask("rules")["groups"]
            return {rule["name"]: rule["health"] for rule in group["rules"]}

        deadline = time.monotonic() + PATIENCE
        # A rate needs two scrapes.
        while not query("rate(relayd_frames_sent_total[1m])") or "unknown" in health().values():
            assert time.monotonic() < deadline, (query("up"), health())
        assert health() == dict.fromkeys(RULES, "ok")
        for text in PANEL_EXPRESSIONS:
            is_tls = bool(names(text)[0] & TLS_METRICS)
            assert bool(query(text)) != is_tls, text
