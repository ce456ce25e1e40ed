"""Alone: a place on this machine where only loopback exists, so that no request of an agent can leave it.

On Linux that is a network namespace: root makes one, anybody else makes one as the root of a user namespace. Where
neither is allowed, agents are given a proxy that does not exist, and whoever asked is told that it is no more.
"""

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

NO_WAY_OUT = {
    **dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9"
    ),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}

_SIOCSIFFLAGS = 0x8914  # set the flags of an interface
_UP = 0x1


def is_alone() -> bool:
    """No route leads out of this process's network."""
    routes = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
    if sys.platform != "linux":
        return False
    ipv4 = routes[0].read_text().splitlines()[1:]
    ipv6 = routes[1].read_text().splitlines() if routes[1].exists() else []
    return {line.split()[0] for line in ipv4} | {line.split()[-1] for line in ipv6} <= {"lo"}


def way_there() -> tuple[str, ...]:
    """The words before a command that start it alone; none where this machine does not allow it."""
    way = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
    try:
        allowed = subprocess.run([*way, "true"], check=False, capture_output=True).returncode == 0
    except OSError:
        allowed = False
    return way if allowed else ()


def raise_loopback() -> None:
    """In a namespace of one's own it is down at first."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _UP))
