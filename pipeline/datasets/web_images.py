"""An image at an http(s) address, read into the memory within limits of size and time."""

import time

import requests
import urllib3

from pipeline.datasets.transfer import reason

MOST_BYTES = 50 << 20
DEADLINE_S = 30.0
_SILENCE_S = 10.0
_CHUNK_BYTES = 1 << 16


def fetch(url: str, most_bytes: int = MOST_BYTES, deadline_s: float = DEADLINE_S) -> bytes | str:
    """What the address holds, or why it could not be fetched.

    Unlike data.url it may come from anywhere, so no variable of the environment is put into it.
    """
    if not url.lower().startswith(("http://", "https://")):
        return "its address is neither http nor https"
    try:
        ends = time.monotonic() + deadline_s
        # `identity`, so that no few compressed bytes become many.
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, headers=headers, stream=True, timeout=_SILENCE_S) as response:
            if response.status_code != 200:
                return f"the server answered {response.status_code} {response.reason or ''}".strip()
            body = bytearray()
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                body += chunk
                if len(body) > most_bytes:
                    return f"it has more than {most_bytes >> 20} MiB"
                if time.monotonic() > ends:
                    return f"it took longer than {deadline_s:.0f} s"
            return bytes(body)
    except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
        return f"no data for {_SILENCE_S:.0f} s"
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        return reason(error)
