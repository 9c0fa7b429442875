"""Images that are uploaded as files: the body itself, or the parts of a multipart form."""

from collections.abc import AsyncIterator

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from bentune.bundle.errors import InvalidRequest, TooLarge
from service.tasks.images import data_url

MULTIPART = "multipart/form-data"


def is_upload(content_type: str) -> bool:
    """Return whether a body of this content type holds files rather than JSON."""
    return content_type.lower().startswith(("image/", MULTIPART))


async def uploaded(content_type: str, body: bytes, max_inputs: int) -> str | list[str]:
    """Return the images of a body as data URLs, in the shape of `inputs`.

    One image is a string, several are a list. Raises InvalidRequest and TooLarge.
    """
    if not content_type.lower().startswith(MULTIPART):
        return data_url(body)

    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = MultiPartParser(
        Headers({"content-type": content_type}),
        stream(),  # type: ignore[arg-type]  # typed as a generator, only iterated
        max_files=max_inputs + 1,
        max_fields=1,
        max_part_size=max(len(body), 1),
    )
    # The body is in memory already. Starlette would write large parts to /tmp, which is memory too, and small.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise InvalidRequest(f"the form cannot be read: {error}") from None
    try:
        parts = [part for _, part in form.multi_items()]
        files = [await part.read() for part in parts if isinstance(part, UploadFile)]
    finally:
        await form.close()
    if len(files) < len(parts):
        raise InvalidRequest("the form must hold files only; `top_k` and `raw_scores` go with `inputs` in a JSON body")
    if not files:
        raise InvalidRequest("the form holds no file")
    if len(files) > max_inputs:
        raise TooLarge(f"the form must have at most {max_inputs} files, this one has {len(files)}")
    images = [data_url(content) for content in files]
    return images[0] if len(images) == 1 else images
