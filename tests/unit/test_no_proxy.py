"""Which connections go through the environment's proxy: as kubectl, a Go program, would have it."""

import pytest

from watcher.network import environment_proxy

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        pytest.param("https://api.example", "", False, id="nothing"),
        pytest.param("https://api.example", "*", True, id="everything"),
        pytest.param("https://api.example", "a, *", True, id="everything after another"),
        pytest.param("https://api.example", " , ,", False, id="blanks"),
        pytest.param("https://127.0.0.1:6443", "", True, id="loopback"),
        pytest.param("https://127.9.9.9", "", True, id="all of loopback"),
        pytest.param("https://[::1]:6443", "", True, id="IPv6 loopback"),
        pytest.param("https://[::ffff:127.0.0.1]", "", True, id="loopback as IPv6"),
        pytest.param("https://localhost:6443", "", True, id="localhost"),
        pytest.param("https://localhost.example", "", False, id="only called so"),
        # Domains
        pytest.param("https://api.corp.example", "corp.example", True, id="a bare domain"),
        pytest.param("https://corp.example", "corp.example", True, id="the domain itself"),
        pytest.param("https://api.corp.example", ".corp.example", True, id="below a domain"),
        pytest.param("https://corp.example", ".corp.example", False, id="not below it"),
        pytest.param("https://api.corp.example", "*.corp.example", True, id="with an asterisk"),
        pytest.param("https://corp.example", "*.corp.example", False, id="not below the asterisk"),
        pytest.param("https://a.b.corp.example", "*.corp.example", True, id="any depth"),
        pytest.param("https://notcorp.example", "corp.example", False, id="the same end only"),
        pytest.param("https://api.example", "other.example", False, id="another domain"),
        pytest.param("https://api.example", "*api.example", False, id="no pattern"),
        pytest.param("https://API.Example", "api.EXAMPLE", True, id="in capitals"),
        pytest.param("https://api.bücher.example", "bücher.example", True, id="umlauts"),
        pytest.param("https://api.xn--bcher-kva.example", "*.bücher.example", True, id="IDNA"),
        # Ports
        pytest.param("https://api.example:6443", "api.example:6443", True, id="name and port"),
        pytest.param("https://api.example:8443", "api.example:6443", False, id="another port"),
        pytest.param("https://api.example", "api.example:443", True, id="the port of https"),
        pytest.param("http://api.example", "api.example:80", True, id="the port of http"),
        pytest.param("https://a.api.example:1", ".api.example:1", True, id="domain and port"),
        pytest.param("https://a.api.example:1", "*.api.example:2", False, id="asterisk and port"),
        pytest.param("https://10.96.0.1:443", "10.96.0.1:443", True, id="address and port"),
        pytest.param("https://10.96.0.1:6443", "10.96.0.1:443", False, id="its other port"),
        pytest.param("https://[fd00::1]:6443", "[fd00::1]:6443", True, id="IPv6 and port"),
        pytest.param("https://[fd00::1]:6443", "[fd00::1]:443", False, id="IPv6 other port"),
        pytest.param("https://api.example", ":443", False, id="a port alone"),
        # Addresses and ranges
        pytest.param("https://10.1.1.1", "10.1.1.1", True, id="an address"),
        pytest.param("https://[fd00::1]:443", "fd00:0::1", True, id="an IPv6 address"),
        pytest.param("https://[::ffff:10.1.1.1]", "10.1.1.1", True, id="IPv4 as IPv6"),
        pytest.param("https://10.96.0.1:443", "10.0.0.0/8", True, id="a range"),
        pytest.param("https://10.96.0.1:443", "192.168.0.0/16,10.96.0.9/12", True, id="ranges"),
        pytest.param("https://10.96.0.1", "localhost, 10.0.0.0/8", True, id="after a blank"),
        pytest.param("https://11.0.0.1", "10.0.0.0/8", False, id="outside of the range"),
        pytest.param("https://[fd00::1]:443", "fd00::/8", True, id="IPv6 range"),
        pytest.param("https://10.0.0.1", "::ffff:10.0.0.0/104", True, id="IPv4 range as IPv6"),
        pytest.param("https://11.0.0.1", "nonsense/x, 11.0.0.0/8", True, id="after nonsense"),
        pytest.param("https://10.0.0.1", "10.0.0.0/255.0.0.0", False, id="no mask of bytes"),
        pytest.param("https://10.0.0.1", "0.0.1", False, id="no end of an address"),
        pytest.param("https://ten.example", "0.0.0.0/0", False, id="a range has no names"),
    ],
)
def test_no_proxy_means_what_it_means_to_kubectl(url, no_proxy, direct):
    """Each row is what golang.org/x/net/http/httpproxy v0.62.0 answers to the same."""
    environ = {"HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY, "NO_PROXY": no_proxy}
    assert environment_proxy(url, environ) == (None if direct else PROXY)


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        pytest.param("https://api.example", {"HTTP_PROXY": "http://p"}, None, id="of http"),
        pytest.param("http://api.example", {"http_proxy": "http://p"}, "http://p", id="lower"),
        pytest.param(
            "http://api.example",
            {"http_proxy": "http://p", "HTTP_PROXY": "http://q"},
            "http://p",
            id="lower case first",
        ),
        pytest.param(
            "http://api.example",
            {"HTTP_PROXY": "http://p", "no_proxy": "api.example", "NO_PROXY": "other"},
            None,
            id="no_proxy in lower case first",
        ),
        pytest.param(
            "https://api.example", {"HTTPS_PROXY": "p:3128"}, "http://p:3128", id="no scheme"
        ),
        pytest.param(
            "https://api.example", {"HTTPS_PROXY": "u:p@p:3128"}, "http://u:p@p:3128", id="password"
        ),
        pytest.param("https://api.example", {"HTTPS_PROXY": ""}, None, id="empty"),
    ],
)
def test_a_proxy_is_for_its_scheme(url, environ, proxy):
    """HTTP_PROXY is not for https, lower case comes first, and a bare host speaks http."""
    assert environment_proxy(url, environ) == proxy
