"""Settings of a processor, which turns a text or an image into the model's inputs."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from bentune.bundle.files import Frozen

MOST_PIXELS = 25_000_000
"""Most pixels of one image: more than almost any camera has, and 75 MB when decoded."""

TOKEN_LENGTH = "token_length"  # noqa: S105
"""Feature of an input for drift: its tokens, special ones included, after truncation."""
TRUNCATED = "truncated"
"""Feature of a text: 1 where it was cut."""
UNKNOWN_TOKENS = "unknown_tokens"
"""Feature of a text: the share of its tokens that the tokenizer does not know."""

Size = Annotated[int, Field(ge=1, le=4096)]
Channels = tuple[float, float, float]


class ProcessorSettings(Frozen):
    """Padding and truncation of texts, which tokenizer.json does not fix.

    `split_special_tokens`: a special token that stands in a text is read as its letters. `unknown_id` is the token for
    what the tokenizer does not know; None for a tokenizer that reads everything, and in bundles made before it was
    counted.
    """

    files: ClassVar = ("processor/tokenizer.json",)
    """Further files of the bundle that the processor needs."""

    pad_id: int = Field(ge=0)
    pad_type_id: int = Field(default=0, ge=0)
    padding_side: Literal["left", "right"] = "right"
    truncation_side: Literal["left", "right"] = "right"
    split_special_tokens: bool = False
    unknown_id: int | None = Field(default=None, ge=0)

    @property
    def features(self) -> frozenset[str]:
        """The histograms that a baseline may have of inputs."""
        unknown = [UNKNOWN_TOKENS] if self.unknown_id is not None else []
        return frozenset([TOKEN_LENGTH, TRUNCATED, *unknown])


class ImageSettings(Frozen):
    """Steps from an RGB image to the model's input, in this order; sizes are in pixels.

    The image is resized to `size` (height and width), or to `shortest_edge` with its proportions. `crop` is the height
    and width of the center that is kept. `resample` is PIL's number of a filter. Values are multiplied by `rescale`;
    then `mean` is subtracted and they are divided by `std`, with one value each for red, green and blue.
    """

    files: ClassVar[tuple[str, ...]] = ()

    size: tuple[Size, Size] | None = None
    shortest_edge: Size | None = None
    resample: int = Field(default=2, ge=0, le=5)
    crop: tuple[Size, Size] | None = None
    rescale: float | None = None
    mean: Channels | None = None
    std: Channels | None = None

    @model_validator(mode="after")
    def _one_size(self) -> "ImageSettings":
        """Require one size of all images, so that they can share a batch."""
        if (self.size is None) == (self.shortest_edge is None) or (self.shortest_edge is not None and not self.crop):
            raise ValueError("images come out at one size by `size`, or by `shortest_edge` and `crop`")
        least = self.size or (self.shortest_edge or 0, self.shortest_edge or 0)
        if self.crop is not None and (self.crop[0] > least[0] or self.crop[1] > least[1]):
            raise ValueError(f"a crop of {self.crop} is larger than what the image is resized to")
        if (self.mean is None) != (self.std is None) or (self.std is not None and min(self.std) <= 0):
            raise ValueError("mean and std go together, and std is above 0")
        return self

    @property
    def features(self) -> frozenset[str]:
        """The histogram that a baseline has of inputs."""
        return frozenset([TOKEN_LENGTH])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        return self.crop or self.size or (0, 0)


InputSettings: TypeAlias = ProcessorSettings | ImageSettings
