"""CED-KD: a decoder writes the teacher's rationale from the encoder's states (2025.coling-industry.12).

The paper gives no sizes; ours: one decoder layer as wide as the encoder, input and output tied to its word embeddings.
B batch, L tokens of the pair, M tokens of the rationale, D hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import nn

from raylib.student.judged import Targets

MAX_RATIONALE = 512


class CedKd(nn.Module):
    """The auxiliary decoder; the encoder's word embeddings are borrowed, not owned."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        config = backbone.config
        self.position = nn.Embedding(MAX_RATIONALE, config.hidden_size)
        self.layer = nn.TransformerDecoderLayer(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            dropout=config.hidden_dropout_prob,
            activation="gelu",
            batch_first=True,
        )

    def forward(self, student: Any, output: Any, inputs: dict[str, torch.Tensor], targets: Targets) -> torch.Tensor:
        """Mean cross-entropy of each rationale's tokens given those before it, [B]."""
        ids_BM, is_token_BM = targets.rationale_BM, targets.is_rationale_BM
        embeddings_VD = student.backbone.get_input_embeddings().weight
        # The first token is told from the pair alone: what goes in is one behind what comes out.
        shifted_BM = torch.cat([torch.zeros_like(ids_BM[:, :1]), ids_BM[:, :-1]], dim=1)
        words_BMD = torch.nn.functional.embedding(shifted_BM, embeddings_VD)
        words_BMD = torch.cat([torch.zeros_like(words_BMD[:, :1]), words_BMD[:, 1:]], dim=1)
        positions_M = torch.arange(ids_BM.shape[1], device=ids_BM.device)
        decoded_BMD = self.layer(
            words_BMD + self.position(positions_M),
            output.hidden_BLD,
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(len(positions_M), device=ids_BM.device),
            tgt_is_causal=True,
            memory_key_padding_mask=~inputs["attention_mask"].bool(),
        )
        logits_BVM = (decoded_BMD @ embeddings_VD.T).transpose(1, 2)
        loss_BM = torch.nn.functional.cross_entropy(logits_BVM, ids_BM, reduction="none") * is_token_BM
        loss_B: torch.Tensor = loss_BM.sum(1) / is_token_BM.sum(1).clamp(min=1)
        return loss_B
