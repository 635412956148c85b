"""Coverage-guided fuzzing of everything that reads what others wrote.

`python -m tests.fuzz [TARGET ...] [--seconds N]` looks for inputs that break a decoder's promise; it needs
the extra `fuzz`. A new decoder is one more file in `targets`, with `check`, which takes bytes and fails when
the promise is broken, `SEEDS`, where the search begins, and for text `WORDS`. What is found lies in
`finds/TARGET/` and is tried again by the test suite, which needs nothing but this folder.
"""
