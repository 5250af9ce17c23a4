"""The clock on the wall is set while the daemon runs: nothing that measures time by intervals may notice."""

import time
from pathlib import Path

import pytest

from tests.rig import sender
from tests.rig.daemon import Daemon
from tests.rig.next_hop import NextHop

APP = "app@example.com"
SHIFT = """
import pathlib, time
_real, _file = time.time, pathlib.Path({path!r})
def shifted():
    try:
        return _real() + float(_file.read_text() or 0)
    except FileNotFoundError:
        return _real()
time.time = shifted
"""
PATIENCE = 30.0  # seconds that anything here may take


@pytest.mark.parametrize("step", [-3600, 3600])
def test_sessions_accounts_and_mail_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A7, A30, C2: after an hour's step an open session lives, its mail is delivered, and a user made inactive is soon refused."""
    (tmp_path / "sitecustomize.py").write_text(SHIFT.format(path=str(tmp_path / "offset")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with NextHop() as hop, Daemon(tmp_path / "daemon", routes=[{"via": hop.via}]) as daemon:
        password = daemon.add_user("app")
        daemon.start()
        with sender.session(daemon.port, "app", password) as client:
            (tmp_path / "offset").write_text(str(step))
            time.sleep(1.5)  # the sweep for idle sessions looks once a second
            assert client.noop()[0] == 250
            client.sendmail(APP, ["ann@example.net"], sender.compose("after the step", sender=APP, to="ann@example.net"))
            hop.await_deliveries(bool, PATIENCE)
            assert daemon.cli("user", "deactivate", "app").returncode == 0
            deadline = time.monotonic() + PATIENCE
            while (code := client.mail(APP)[0]) == 250 and time.monotonic() < deadline:
                client.rset()
                time.sleep(0.2)
            assert code == 530
