"""Fetches the files of a distribution that licence and host allow to be fetched."""

import hashlib
import http.client
import os
import pathlib
import urllib.error
import urllib.request

from tqdm import tqdm

from alm_jax.config import ConfigError
from alm_jax.data.catalog.declaration import Dataset

_PIECE = 1 << 20
_TIMEOUT = 60  # seconds without a byte


_SUMS = pathlib.Path(__file__).parents[1] / 'downloads.sha256'


def fetch(
    dataset: Dataset, config: str, manual_dir: pathlib.Path, sums: pathlib.Path = _SUMS
) -> list[str]:
    """Downloads what ``manual_dir`` lacks of ``dataset.downloads``; the names fetched.

    A download that was cut goes on where it ended, when the server can; a file gets its name only
    when its SHA-256 is right.

    Raises:
      ConfigError: the dataset names no download, no network, or another content.
    """
    downloads = dataset.downloads(config)
    if not downloads:
        raise ConfigError(
            f'{dataset.title} cannot be downloaded from here: its licence or host asks you to do '
            f'it.\n{dataset.layout}'
        )
    digests = read_sums(sums)
    lacking = [name for name in downloads if not (manual_dir / name).exists()]
    for name in lacking:
        address, digest = downloads[name], digests[f'{dataset.name}/{name}']
        path = manual_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f'{path.name}.part')
        try:
            _download(address, part, name)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
            reason = getattr(error, 'reason', error)
            raise ConfigError(
                f'Cannot fetch {address}: {reason}. Run the command again, which goes on, or put '
                f'the file at {path} by hand.'
            ) from error
        found = _sha256(part)
        if found != digest:
            part.unlink()
            raise ConfigError(f'{address} has SHA-256 {found}; expected {digest}. It is not kept.')
        os.replace(part, path)
    return lacking


def read_sums(path: pathlib.Path = _SUMS) -> dict[str, str]:
    """{'NAME/FILE': SHA-256} of all downloads, in the format of sha256sum."""
    lines = path.read_text().splitlines()
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}


def _download(address: str, part: pathlib.Path, name: str) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={'Range': f'bytes={done}-'} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            return  # all of it is there; its hash will tell
        raise
    with response:
        goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
        done = done if goes_on else 0
        length = response.length + done if response.length is not None else None
        with (
            part.open('ab' if goes_on else 'wb') as file,
            tqdm(total=length, initial=done, unit='B', unit_scale=True, desc=name) as bar,
        ):
            while piece := response.read(_PIECE):
                file.write(piece)
                bar.update(len(piece))
    if length is not None and part.stat().st_size < length:
        raise http.client.IncompleteRead(b'', length - part.stat().st_size)


def _sha256(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
