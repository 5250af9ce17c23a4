"""`smtpplus doctor` against a running daemon: from the client's side, and on the server."""

from pathlib import Path
from typing import Any

from tests.rig.commands import ask, run
from tests.rig.daemon import HOST, Daemon, free_ports
from tests.rig.name_server import NameServer


def test_doctor(tmp_path: Path) -> None:
    """B4, B5, B7: open ports with encryption and login, refused ones, and which to use; on the server ticks and crosses with remedies."""
    plain, implicit, closed, http = free_ports(4)
    listen = [
        {"ports": str(plain), "interfaces": [HOST], "auth_without_tls": "never"},
        {"ports": str(implicit), "interfaces": [HOST], "tls": "implicit"},
    ]
    with NameServer(tmp_path) as names:
        settings: dict[str, Any] = {"hostname": "localhost", "listen": listen, "dns": {"servers": [names.server]}}
        settings["http"] = {"listen": f"{HOST}:{http}"}
        with Daemon(tmp_path / "relay", routes=[{"via": "discard:"}], settings=settings) as daemon:
            daemon.port = plain
            daemon.add_user("app")
            daemon.start()
            told = ask(daemon, "doctor", HOST, "--ports", f"{plain}, {implicit}, {closed}", "--patience", "1")
            found = {each["port"]: each for each in told["ports"]}
            assert found[closed]["state"] == "refused"
            assert (found[plain]["tls"], found[plain]["auth_in_clear"], found[implicit]["tls"]) == ("starttls", False, "implicit")
            assert "self-signed" in found[plain]["certificate"]
            assert "PLAIN" in found[plain]["auth"]
            assert told["use"] in (plain, implicit)
            nothing = run(daemon, "doctor", HOST, "--ports", str(closed))
            assert nothing.exit_code == 1
            assert f"configured to serve: {plain}, {implicit}" in nothing.stdout

            names.publish("example.com", "v=spf1 +all")
            names.publish("_dmarc.example.com", "v=DMARC1; p=none")
            assert run(daemon, "dkim", "add", "example.com").exit_code == 0
            findings = ask(daemon, "doctor", status=1)["findings"]
            good = [each["text"] for each in findings if each["good"]]
            bad = {each["text"]: each["remedy"] for each in findings if each["good"] is False}
            assert any(text.startswith("it runs as process") for text in good)
            assert {"it is taken", f"port {plain} answers", f"port {implicit} answers", "DMARC: v=DMARC1; p=none"} < set(good)
            assert bad["SPF: the record lets everybody send (+all)"]
            assert [text for text in bad if text.startswith("DKIM: the key") and text.endswith("is missing")]
            assert all(bad.values())
            daemon.terminate()
            stopped = run(daemon, "doctor").stdout
            assert "✗ daemon: it does not run on this machine. Remedy:" in stopped
            assert f"✗ ports: nobody answers at {HOST}, port {plain} (refused)" in stopped
            (daemon.state / "smtpplus.sqlite").write_bytes(b"no database" * 1000)
            broken = run(daemon, "doctor").stdout
            assert "✗ database: The database" in broken
            assert "✓ disk" in broken or "✗ disk" in broken
