"""The guarded way out: which addresses are dialled, and how every odd spelling of one is seen for what it is."""

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.urls import is_http_url
from service.network.dialler import Guard, Refused, check_url, read_host

BAD = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.1.2.3",
    "127.255.255.255", "169.254.0.1", "168.63.129.16", "100.100.100.200", "192.0.0.192",
    "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1",
    "192.0.0.170", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.168.255.255",
    "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "::127.0.0.1",
    "::10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "64:ff9b:1:ffff::", "100::1", "100:0:0:1::1",
    "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1", "2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1",
    "fd00:ec2::254", "fdff::1", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1",
]  # fmt: skip

GOOD = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
    "168.63.129.15", "168.63.129.17", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255",
    "198.20.0.0", "223.255.255.255",
    "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2400:cb00::1", "2620:0:ccc::2",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    assert Guard().refusal(ipaddress.ip_address(text)) is not None


@pytest.mark.parametrize("text", GOOD)
def test_a_public_address_is_dialled(text: str) -> None:
    assert Guard().refusal(ipaddress.ip_address(text)) is None


def test_one_bad_address_makes_a_bad_host() -> None:
    addresses = [ipaddress.ip_address("8.8.8.8"), ipaddress.ip_address("127.0.0.1")]
    with pytest.raises(Refused, match=r"KLINGEL_ALLOW_NETWORKS"):
        Guard().check("example.com", addresses)


@pytest.mark.parametrize("text", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203"])
def test_an_opened_network_is_dialled_in_each_of_its_forms(text: str) -> None:
    guard = Guard([ipaddress.ip_network("10.0.0.0/8")])
    assert guard.refusal(ipaddress.ip_address(text)) is None
    assert guard.refusal(ipaddress.ip_address("192.168.0.1")) is not None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_each_ipv6_form_of_it(address: ipaddress.IPv4Address) -> None:
    guard = Guard()
    plain = guard.refusal(address)
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        embedded = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
        assert (guard.refusal(embedded) is None) == (plain is None)


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_dialled(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        assert Guard().refusal(address) is not None


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "//example.com/", "example.com", "http://", "http:///path",
        "http://user@example.com/", "http://user:secret@example.com/", "http://example.com:0/",
        "http://example.com:65536/", "http://example.com:x/", "http://[::1", "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/", "http://exa mple.com/", "http://example.com/\r\nhost: x", "http://example.com/\t",
        "javascript:alert(1)", "gopher://example.com:70/", "", "http://" + "a" * 5000 + ".com/", "http://\ud800/",
    ],
)  # fmt: skip
def test_what_is_no_url_to_be_dialled_is_refused_as_such(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "127.1", "127.0.1", "0177.0.0.1", "017700000001", "0x7f000001", "0x7f.1", "0X7F.0.0.1", "0x",
        "127.0.0.0x1", "127.0.0.1.", "127.1.", "1.2.3.4.5", "256.1.1.1", "127.0.0.01", "example.1", "0",
        "%31%32%37.0.0.1", "x%2fy", "a,b", "a..b", ".", "a" * 64 + ".com", "a." * 127 + "com", "１２７.1", "[v1.1]",
    ],
)  # fmt: skip
def test_an_odd_spelling_of_an_address_is_refused_before_anything_looks_it_up(host: str) -> None:
    """Libraries differ in what they read as an address: what only some of them do is none."""
    with pytest.raises(Refused):
        check_url(f"http://{host}/")


@pytest.mark.parametrize(
    "host",
    ["example.com", "example.com.", "a_b.example", "1.e", "0x.example", "xn--mnchen-3ya.de", "db", "1a"],
)
def test_a_name_is_a_name_however_many_digits_it_has(host: str) -> None:
    assert read_host(host) is None
    assert check_url(f"http://{host}/").raw_host == host


def test_digits_of_other_scripts_are_judged_as_the_address_that_they_become() -> None:
    for host in ("１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1"):
        assert read_host(check_url(f"http://{host}/").raw_host or "") == ipaddress.ip_address("127.0.0.1")


@pytest.mark.parametrize("port", ["٨٠", "８０", "000080", "0" * 3000 + "80", "8_0", "+80"])
@pytest.mark.parametrize("host", ["example.com", "[2606:4700::1111]"])
def test_a_port_that_only_some_read_as_a_number_is_refused_and_why_is_said(host: str, port: str) -> None:
    with pytest.raises(Refused, match="digits from 0 to 9, at most five"):
        check_url(f"http://{host}:{port}/")
    assert not is_http_url(f"http://{host}:{port}/")


@pytest.mark.parametrize(
    "url", ["http://example.com:/", "http://[2606:4700::1111]:00080/?at=12:30", "http://h?:"]
)
def test_a_port_may_be_left_out_or_begin_with_zeros(url: str) -> None:
    assert check_url(url).port == 80
    assert is_http_url(url)


@given(st.text())
def test_any_text_is_a_url_or_refused_and_nothing_else(text: str) -> None:
    for url in (text, f"http://{text}", f"http://{text}/", f"https://example.com:{text}/"):
        with contextlib.suppress(Refused):
            check_url(url)
