"""`parsl.addresses`: addresses of this machine, as configurations ask for them. No other host is asked."""

from __future__ import annotations

import socket

import psutil

from mpitask.errors import ConfigurationError


def _addresses(interface: str | None = None) -> list[str]:
    found = psutil.net_if_addrs()
    if interface is not None and interface not in found:
        raise ConfigurationError(f"there is no network interface {interface!r}; there are: {', '.join(sorted(found))}")
    names = sorted(found) if interface is None else [interface]
    return [entry.address for name in names for entry in found[name] if entry.family == socket.AF_INET]


def address_by_interface(ifname: str) -> str:
    """The IPv4 address of a network interface.

    Raises:
        ConfigurationError: it does not exist, or has none.
    """
    addresses = _addresses(ifname)
    if not addresses:
        raise ConfigurationError(f"the network interface {ifname!r} has no IPv4 address")
    return addresses[0]


def address_by_hostname() -> str:
    """The address that this machine's name stands for."""
    return socket.gethostbyname(socket.gethostname())


def address_by_route() -> str:
    """The address from which this machine reaches others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; the address is one of those kept for documentation
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def address_by_query(timeout: float = 30) -> str:  # noqa: ARG001
    """As `address_by_route`: no service outside is asked."""
    return address_by_route()


def get_all_addresses() -> set[str]:
    """All IPv4 addresses of this machine."""
    return set(_addresses())


def get_any_address() -> str:
    """Some address of this machine, not the loopback one if there is another."""
    return next((address for address in _addresses() if not address.startswith("127.")), "127.0.0.1")


def tcp_url(address: str, port: str | int | None = None) -> str:
    """`tcp://address:port`."""
    if port is None:
        return f"tcp://{address}"
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"
