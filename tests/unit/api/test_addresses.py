from __future__ import annotations

import pytest

from icon_classifier.api.addresses import client_of, is_public


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "151.101.1.69", "2606:4700:4700::1111", "2a00:1450:4001::1"]
)
def test_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.10", "0.0.0.0", "::1", "::"),
        *("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12::1"),
        *("169.254.1.1", "fe80::1", "fe80::1%eth0", "2606:4700::1%1", "fec0::1"),
        *("224.0.0.1", "239.255.255.250", "ff02::1", "255.255.255.255", "240.0.0.1"),
        # where clouds tell secrets to their machines
        *("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
        *("100.64.0.1", "198.18.0.1", "192.0.2.1", "203.0.113.1", "192.88.99.1", "2001:db8::1"),
        # IPv4 inside IPv6: mapped, compatible, NAT64, 6to4, Teredo, ISATAP
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "2606:4700::5efe:7f00:1"),
        *("", "localhost", "127.1", "0x7f000001", "1.1.1.1/32"),
    ],
)
def test_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    ("forwarded", "proxies", "client"),
    [
        ([], 0, "9.9.9.9"),
        (["1.2.3.4"], 0, "9.9.9.9"),  # anybody can send that header
        (["1.2.3.4"], 1, "1.2.3.4"),
        (["6.6.6.6, 1.2.3.4"], 1, "1.2.3.4"),  # the first one the client made up
        (["6.6.6.6", "1.2.3.4, 5.6.7.8"], 2, "1.2.3.4"),
        (["1.2.3.4"], 2, "9.9.9.9"),  # fewer than there are proxies: not through them
        (["nonsense"], 1, "9.9.9.9"),
        ([""], 1, "9.9.9.9"),
        (["2606:4700:1:2:3:4:5:6"], 1, "2606:4700:1:2::/64"),
    ],
)
def test_client_of(forwarded, proxies, client):
    assert client_of("9.9.9.9", forwarded, proxies) == client


def test_a_socket_has_no_address():
    assert client_of("unknown", [], 0) == "unknown"
