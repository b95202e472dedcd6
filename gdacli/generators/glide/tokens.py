"""GPT-2's byte-pair tokens, as GLIDE reads a prompt.

`merges.txt.gz` is GPT-2's `vocab.bpe`; its licence is in `LICENSE.merges.txt`.
"""

import gzip
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from gdacli.errors import GdaError

_MERGES = Path(__file__).with_name("merges.txt.gz")

VOCABULARY_SIZE = 50_257
"""256 bytes, 50,000 merges, and the end of a text, which pads a prompt."""


def tokenize(prompt: str, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn a prompt into token ids, int64 [length], and a mask, bool [length], True where a token is of the prompt.

    Raises:
        GdaError: the prompt has more tokens.

    Source: GLIDE's reference implementation, which lowers the case of the prompt; it cuts a long one, this does not.
    """
    tokens = _tokenizer().encode(prompt.lower()).ids
    if len(tokens) > length:
        raise GdaError(
            f"generate.prompt: {prompt!r} has {len(tokens)} tokens; the model reads at most {length}: shorten it"
        )
    padding = length - len(tokens)
    ids = torch.tensor(tokens + [VOCABULARY_SIZE - 1] * padding)
    return ids, torch.arange(length) < len(tokens)


@cache
def _tokenizer() -> Tokenizer:
    lines = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").splitlines()
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines[1:])]  # after the version
    symbols = [*_byte_symbols(), *(left + right for left, right in merges)]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    return tokenizer


def _byte_symbols() -> list[str]:
    """Return the characters that stand for the 256 bytes, in the order of their ids: the printable ones first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = range(256, 256 + 256 - len(printable))
    return [chr(code) for code in [*printable, *others]]
