"""What a text must be before it is tokenized."""


def check_text(text: object) -> None:
    """ValueError unless this is a string that UTF-8 can hold."""
    if not isinstance(text, str):
        raise ValueError(f"a text must be a str, this is {type(text).__name__}: {text!r:.80}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a text has the lone surrogate {text[error.start]!r} at character {error.start}, "
            'which no UTF-8 holds; repair it, say with text.encode("utf-8", "replace").decode()'
        ) from None
