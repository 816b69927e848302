"""Low-rank adapters: one adapted linear layer, and fused computation of several."""
