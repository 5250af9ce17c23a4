"""A daemon that finds the queue in use, or files of another database in its place, says so and touches nothing."""

from pathlib import Path

from tests.rig import sender
from tests.rig.daemon import Daemon, free_ports


def refused(daemon: Daemon) -> str:
    """What a start that fails says, in one sentence and with status 1."""
    before = len(daemon.log_path.read_text()) if daemon.log_path.exists() else 0
    daemon.launch()
    assert daemon.await_end() == 1
    said = daemon.log_path.read_text()[before:]
    assert "Traceback" not in said
    return said


def test_a_second_daemon_and_another_database_remove_nothing(tmp_path: Path) -> None:
    """C2: a long message stays whole beside a second daemon on the same state, and beside a new database in the place of its own. Commands
    work beside the daemon; after SIGKILL the next one starts at once."""
    route = {"via": f"smtp://127.0.0.1:{free_ports(1)[0]}"}
    with Daemon(tmp_path / "a", routes=[route]) as first:
        password = first.add_user("app")
        first.start()
        with sender.session(first.port, "app", password) as client:
            client.sendmail(
                "app@example.com", ["ann@example.net"], sender.compose("x", sender="app@example.com", to="ann@example.net", size=500_000)
            )
        files = first.contents()
        assert len(files) == 1
        assert first.process is not None
        second = Daemon(tmp_path / "b", routes=[route], settings={"state_directory": str(first.state)})
        said = refused(second)
        assert (
            f"smtpplus is not started: another smtpplus (process {first.process.pid}) uses {first.state}/smtpplus.sqlite; stop it" in said
        )
        assert first.cli("queue", "list").returncode == 0
        first.kill9()
        first.start()
        first.terminate()
        database, aside = first.state / "smtpplus.sqlite", first.state / "aside"
        database.rename(aside)
        assert (
            "smtpplus is not started: " in (said := refused(first))
            and f"{first.state}/smtpplus.sqlite-content holds the content of 1" in said
        )
        for path in first.state.glob("smtpplus.sqlite*"):
            if path.is_file() and path.suffix != ".daemon":
                path.unlink()
        aside.rename(database)
        first.start()
        assert first.contents() == files
        assert first.stored("messages") == 1
