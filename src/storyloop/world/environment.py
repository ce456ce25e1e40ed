"""The environment that agents and checks get: an allow-list, never all that the user's shell has."""

from collections.abc import Mapping, Sequence

_NAMES = frozenset(
    {
        "PATH", "HOME", "USER", "LANG", "TERM", "TZ", "TMPDIR",
        "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY",
        "http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
        "GIT_SSL_CAINFO", "PIP_CERT", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "DENO_CERT",
    }
)  # fmt: skip


def allowed_environment(
    environ: Mapping[str, str], *, extra: Mapping[str, str], pass_env: Sequence[str] = ()
) -> dict[str, str]:
    """What of the user's environment is handed on, and `extra`, which wins; sorted by name."""
    handed_on = {
        name: value for name, value in environ.items() if name in _NAMES or name.startswith("LC_") or name in pass_env
    }
    return dict(sorted({**handed_on, **extra}.items()))
