"""What a command says to a user who has erred."""


def one_sentence(status, out, error):
    """The sentence, if that is all there is and the status is 2."""
    assert status == 2
    assert out == ""
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in error
    return line
