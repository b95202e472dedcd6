"""GLIDE's transformer over the tokens of a prompt: what the UNet attends to, and a vector for its time embedding."""

import torch
import torch.nn.functional as F
from torch import nn

from gdacli.generators.glide.tokens import VOCABULARY_SIZE


class TextTransformer(nn.Module):
    """Turn token ids [B, L] and their mask into states [B, L, D] and one vector [B, E]."""

    def __init__(self, length: int, width: int, num_layers: int, head_width: int, embedding_width: int) -> None:
        super().__init__()
        self.length = length
        self.token_embedding = nn.Embedding(VOCABULARY_SIZE, width)
        self.positional_embedding = nn.Parameter(torch.empty(length, width))
        self.padding_embedding = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.ModuleList(_Block(width, width // head_width) for _ in range(num_layers))
        self.final_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, embedding_width)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class.

        Source: Nichol et al. 2021 (GLIDE), section 4; padding has a learned embedding a place and is attended to, and
        the vector is that of the last place, as in the reference implementation.
        """
        x = self.token_embedding(tokens) + self.positional_embedding
        x = torch.where(mask[..., None], x, self.padding_embedding)
        for block in self.blocks:
            x = block(x)
        states = self.final_norm(x)
        return states, self.projection(states[:, -1])


class _Block(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        x_BLD = x_BLD + self._attend(self.attention_norm(x_BLD))
        return x_BLD + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x_BLD))))

    def _attend(self, x_BLD: torch.Tensor) -> torch.Tensor:
        heads_BHLd = self.qkv(x_BLD).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        query, key, value = heads_BHLd.chunk(3, dim=3)  # of one head side by side
        return self.attention_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
