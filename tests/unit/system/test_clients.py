import pytest
from hypothesis import given
from hypothesis import strategies as st

from icon_classifier.system import clients
from icon_classifier.system.clients import client_address, client_protocol


@pytest.mark.parametrize(
    ("forwarded", "proxies", "client"),
    [
        ([], 0, "9.9.9.9"),
        (["1.2.3.4"], 0, "9.9.9.9"),  # any client can send that header
        (["1.2.3.4"], 1, "1.2.3.4"),
        (["6.6.6.6, 1.2.3.4"], 1, "1.2.3.4"),  # the first may be forged
        (["6.6.6.6", "1.2.3.4, 5.6.7.8"], 2, "1.2.3.4"),
        (["1.2.3.4"], 2, "9.9.9.9"),  # fewer than the proxies: it did not pass them
        (["nonsense"], 1, "9.9.9.9"),
        ([""], 1, "9.9.9.9"),
        (["2606:4700:1:2:3:4:5:6"], 1, "2606:4700:1:2::/64"),
        (["1.2.3.4:5678"], 1, "1.2.3.4"),
        (["[2606:4700:1:2:3:4:5:6]:5678"], 1, "2606:4700:1:2::/64"),
        (["[::1]"], 1, "::/64"),
        (["::ffff:1.2.3.4"], 1, "1.2.3.4"),
        (["[::FFFF:102:304]:80"], 1, "1.2.3.4"),
        (["fe80::1%eth0"], 1, "fe80::/64"),
        (["1.2.3.4:5:6"], 1, "9.9.9.9"),
        (["[1.2.3.4"], 1, "1.2.3.4"),
        (["1.2.3.4, "], 1, "9.9.9.9"),
    ],
)
def test_client_address_trusts_only_the_given_number_of_proxies(
    forwarded: list[str], proxies: int, client: str
) -> None:
    assert client_address("9.9.9.9", forwarded, proxies) == client


@pytest.mark.parametrize(
    ("forwarded", "proxies", "protocol"),
    [
        ([], 1, "http"),
        (["https"], 1, "https"),
        (["https"], 0, "http"),  # any client can send that header
        (["HTTPS, http"], 2, "https"),
        (["https", "http"], 2, "https"),
        (["javascript"], 1, "http"),
        ([""], 1, "http"),
    ],
)
def test_client_protocol_is_that_of_the_first_proxy(
    forwarded: list[str], proxies: int, protocol: str
) -> None:
    assert client_protocol("http", forwarded, proxies) == protocol


def test_header_of_a_proxy_that_nobody_told_of_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients._warn_of_proxies.cache_clear()
    for _ in range(3):
        client_address("9.9.9.9", ["1.2.3.4"], 0)
        client_address("9.9.9.9", ["1.2.3.4"], 1)
    [record] = caplog.records
    assert "PROXIES" in record.getMessage()


def test_peer_without_an_address_is_kept_as_it_is() -> None:
    assert client_address("unknown", [], 0) == "unknown"


@pytest.mark.parametrize("forwarded", [[], ["nonsense"]])
def test_peer_of_a_socket_for_both_versions_is_the_ipv4_client(forwarded: list[str]) -> None:
    assert client_address("::ffff:127.0.0.1", forwarded, 1) == "127.0.0.1"
    assert client_address("::ffff:127.0.0.2", forwarded, 1) == "127.0.0.2"


@given(st.text(alphabet=st.sampled_from("0123456789abcdef.:[]%, \0\u0661x")), st.integers(0, 3))
def test_whatever_is_forwarded_names_some_client(forwarded: str, proxies: int) -> None:
    assert client_address("9.9.9.9", [forwarded], proxies)
