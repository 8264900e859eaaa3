"""MedMNIST's own records, and files fetched once, checked and whole."""

from __future__ import annotations

import ast
import errno
import time
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path


@cache
def medmnist_records() -> dict[str, dict]:
    """URL, MD5, counts, labels and licence of each MedMNIST set, by its flag.

    Read from the source of the `medmnist` package, not imported: the import takes two
    seconds (sklearn, pandas) and makes a folder in the user's home.
    """
    package = find_spec("medmnist")
    if package is None:
        raise ModuleNotFoundError(
            "the package medmnist is missing; run `python3 -m course_lib doctor`"
        )
    source = Path(package.origin).with_name("info.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "INFO":
            return ast.literal_eval(node.value)
    raise ImportError("this medmnist has no INFO table; install medmnist 3.0.2")


def fetch(
    url: str,
    path: Path,
    md5: str,
    *,
    attempts: int = 5,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> Path:
    """Fetch `url` to `path` unless it is there, and return `path`.

    What arrives goes to `<path>.part` and is continued after a break, also by a later
    call; only a file with the right MD5 is moved to `path`. Several processes share
    one download. `timeout` and `pause` (doubled after each failure) are in seconds.
    Raises ConnectionError (no network, server error), ValueError (wrong bytes) and
    OSError (disk), each with what to do.
    """
    import pooch
    import requests
    from filelock import FileLock

    if path.exists():
        return path
    part = path.with_name(path.name + ".part")
    by_hand = (
        f"To do it by hand, download {url} in a browser and put it at {path}; "
        'or use the data set "phantom", which needs no download.'
    )
    pooch.get_logger().setLevel("WARNING")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            pooch.retrieve(  # does nothing if another process has just fetched it
                url,
                known_hash=f"md5:{md5}",
                fname=path.name,
                path=path.parent,
                downloader=partial(
                    _download,
                    part=part,
                    attempts=attempts,
                    timeout=timeout,
                    pause=pause,
                ),
            )
    except requests.RequestException as error:
        kept = ""
        if part.exists():
            kept = f" {part.name} keeps what arrived; run again to go on."
            if part.stat().st_size == 0:
                part.unlink()
                kept = ""
        raise ConnectionError(
            f"{path.name} could not be fetched ({_reason(error)}).{kept} {by_hand}"
        ) from error
    except ValueError as error:  # pooch: another MD5; it has deleted the file
        raise ValueError(
            f"the server sent other bytes than the published {path.name} (MD5 {md5}); "
            f"nothing was kept. Try again. {by_hand}"
        ) from error
    except OSError as error:
        part.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "Free some space there" if full else "Check that you may write there"
        raise OSError(
            error.errno,
            f"{path.name} could not be written to {path.parent} ({error.strerror}). "
            f"{fix}, or set COURSE_CACHE to another folder",
        ) from error
    return path


def _download(
    url: str,
    output_file: str,
    _pooch: object,
    *,
    part: Path,
    attempts: int,
    timeout: float,
    pause: float,
) -> None:
    """A downloader for pooch that goes on where a broken connection stopped."""
    import requests

    for attempt in range(attempts):
        try:
            _continue(url, part, timeout)
            break
        except requests.RequestException as error:
            status = getattr(error.response, "status_code", None)
            if status == 416:  # the part is longer than the file: begin again
                part.unlink(missing_ok=True)
            elif status is not None and 400 <= status < 500 and status != 429:
                raise  # 404: asking again does not help
            if attempt == attempts - 1:
                raise
            time.sleep(min(pause * 2**attempt, 30.0))
    part.replace(output_file)


def _continue(url: str, part: Path, timeout: float) -> None:
    import requests
    from tqdm.auto import tqdm

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        answer.raise_for_status()
        resumed = answer.status_code == 206  # a server may ignore Range and send all
        have = have if resumed else 0
        length = int(answer.headers.get("Content-Length", 0))
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                desc=part.stem,
                total=have + length or None,
                initial=have,
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            for chunk in answer.iter_content(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the server answered {status}"
    return f"no network or a broken connection: {type(error).__name__}"
