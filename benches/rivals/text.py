"""The tokens that every engine reads, as in `benches/src/bin/speed/cells.rs`."""

# Tokens of the prompt whose last logits are compared.
ANSWER = 64
# Every vocabulary of the shapes has these.
TOKENS = 50277


def tokens(first, count):
    return [(index % TOKENS * 7919 + 13) % TOKENS for index in range(first, first + count)]
