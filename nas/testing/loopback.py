"""An sshd of a test's own on loopback: own keys, own config, an unprivileged port, no config of the system touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Sshd:
    """Runs as this user until it is closed; ``board`` is its name in the ssh config at ``config``.

    Args:
        folder: to make, for keys, configs and the log.
        forced: program that runs in place of the login shell, which finds the line in SSH_ORIGINAL_COMMAND; or None.
    """

    def __init__(self, folder: Path, forced: Path | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        public = (folder / "host.pub").read_text()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        server = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host",
            "PidFile": "none",
            "AuthorizedKeysFile": folder / "authorized_keys",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
        }
        if forced is not None:
            server["ForceCommand"] = forced
        client = {
            "HostName": "127.0.0.1",
            "Port": self.port,
            "IdentityFile": folder / "user",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
        }
        (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in server.items()))
        self.config = folder / "config"
        self.config.write_text("Host board\n" + "".join(f"  {key} {value}\n" for key, value in client.items()))
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        assert SSHD is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's empty folder, which Debian makes at boot
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", self.folder / "sshd_config"], stdin=subprocess.DEVNULL, stderr=log
            )
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return process
            assert process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        raise AssertionError(f"no sshd on port {self.port}: {(self.folder / 'log').read_text()}")

    @property
    def words(self) -> list[str]:
        """Settings of ``nas`` that name this board."""
        return ["device=ssh", "device.host=board", f"device.ssh_config={self.config}"]

    def sessions(self) -> list[int]:
        """Process ids of the sshd processes that serve a connection, the privileged ones included."""
        found: list[int] = []
        parents = {self.process.pid}
        for _ in range(3):
            for entry in Path("/proc").iterdir():
                if not entry.name.isdigit() or int(entry.name) in found:
                    continue
                with contextlib.suppress(OSError):
                    name, rest = (entry / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
                    if name.startswith("sshd") and int(rest.split()[1]) in parents:
                        found.append(int(entry.name))
            parents |= set(found)
        return found

    def cut(self) -> int:
        """Kill every connection as a pulled plug would, and return how many processes that were."""
        found = self.sessions()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self.cut()
        self.process.kill()
        self.process.wait()
