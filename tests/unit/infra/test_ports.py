"""Which ports a stack gets, and what is said of a taken one."""

from __future__ import annotations

import os
import socket
from dataclasses import astuple, replace

import pytest

from infra.local.errors import StackError
from infra.local.ports import HOST, Ports, choose_ports, free_ports, require_free


def test_without_variables_the_ports_are_the_defaults() -> None:
    assert choose_ports({}) == Ports()


def test_the_offset_moves_every_default() -> None:
    moved = choose_ports({"CHAT4ALL_PORT_OFFSET": "1000"})

    assert astuple(moved) == tuple(port + 1000 for port in astuple(Ports()))


def test_a_port_named_by_its_variable_is_not_moved_by_the_offset() -> None:
    moved = choose_ports({"CHAT4ALL_PORT_OFFSET": "1000", "CHAT4ALL_KAFKA_PORT": "9999"})

    assert (moved.kafka, moved.redis) == (9999, Ports().redis + 1000)


def test_ports_that_the_environment_does_not_name_stay_where_they_were() -> None:
    remembered = replace(Ports(), kafka=7001, redis=7002)

    assert choose_ports({"CHAT4ALL_REDIS_PORT": "7003"}, remembered) == replace(remembered, redis=7003)


def test_an_offset_of_zero_goes_back_to_the_defaults() -> None:
    assert choose_ports({"CHAT4ALL_PORT_OFFSET": "0"}, replace(Ports(), kafka=7001)) == Ports()


@pytest.mark.parametrize("value", ["0", "65536", "-5", "http"])
def test_what_is_no_port_is_refused_with_the_variable_s_name(value: str) -> None:
    with pytest.raises(StackError, match="CHAT4ALL_DELIVERY_PORT"):
        choose_ports({"CHAT4ALL_DELIVERY_PORT": value})


def test_two_servers_on_one_port_are_refused() -> None:
    with pytest.raises(StackError, match=r"CHAT4ALL_INGEST_API_PORT and CHAT4ALL_DELIVERY_PORT are both 8000"):
        choose_ports({"CHAT4ALL_DELIVERY_PORT": "8000"})


def test_free_ports_differ_and_lie_below_those_of_outgoing_connections() -> None:
    ports = astuple(free_ports())

    assert len(set(ports)) == len(ports)
    assert all(port < 32_768 for port in ports)


def test_a_taken_port_is_told_with_its_holder_and_the_variable_that_moves_it() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(StackError) as refused:
            require_free(replace(Ports(), connect=port), ["connect"])

    said = str(refused.value)
    assert f"port {port} (connect) is held by process {os.getpid()}" in said
    assert "CHAT4ALL_CONNECT_PORT moves it" in said
