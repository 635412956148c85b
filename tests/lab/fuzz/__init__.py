"""Coverage-guided fuzzing of the decoders that read input from outside.

`python -m tests.lab fuzz [TARGET ...] [--seconds N]` searches for input that breaks a decoder's promise, with
the extra `fuzz`. A new decoder is one more `Target` in a file here: `check` takes bytes and fails when
the promise is broken, the search begins at the seeds. Findings are kept in `finds/TARGET/`, and the test
suite tries them again without the extra. Policy files, saved snapshots and audit logs have property tests
in `tests/unit` and no target; the parser of HTTP is a library.
"""
