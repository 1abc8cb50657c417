"""How connections are told by their names, whatever ZeroMQ calls them."""

from __future__ import annotations

import socket

import pytest
import zmq

from grid.wire import monitor


@pytest.mark.parametrize(
    ("endpoint", "spelled"),
    [
        ("tcp://10.0.0.1:80", "tcp://10.0.0.1:80"),
        ("tcp://[::ffff:10.0.0.1]:80", "tcp://10.0.0.1:80"),
        ("tcp://[2001:DB8:0::0:1]:80", "tcp://[2001:db8::1]:80"),
        ("tcp://[fe80::1%eth0]:80", "tcp://[fe80::1%eth0]:80"),
        ("tcp://a.host:80", "tcp://a.host:80"),
        ("ipc:///tmp/10.0.0.1:80", "ipc:///tmp/10.0.0.1:80"),
        ("inproc://x", "inproc://x"),
        ("", ""),
    ],
)
def test_an_endpoint_has_one_spelling(endpoint: str, spelled: str) -> None:
    assert monitor.plain(endpoint) == spelled


@pytest.mark.parametrize("address", ["127.0.0.1", "0:0:0:0:0:0:0:1"])
def test_a_connection_that_comes_back_has_the_name_that_it_had(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as free:
        try:
            free.bind((address, 0))
        except OSError:
            pytest.skip("this machine has no loopback of that kind")
        port = free.getsockname()[1]
    asked = f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.ipv6, pull.linger, pull.reconnect_ivl = True, 0, 20
        news = pull.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        pull.connect(asked)
        told = []
        for _ in range(2):
            with context.socket(zmq.PUSH) as push:
                push.ipv6, push.linger = True, 0
                push.bind(asked)
                assert news.poll(20_000)
                told.append(monitor.read(news))
            assert news.poll(20_000)
            told.append(monitor.read(news))
        pull.disable_monitor()
        news.close(0)
    name = monitor.plain(asked)
    assert told == [(zmq.EVENT_HANDSHAKE_SUCCEEDED, name), (zmq.EVENT_DISCONNECTED, name)] * 2
