"""How much of a GPU scoring, training, embedding and clustering use.

    python -m benchmarks.gpu [--sweep] [--parts scoring training …] [--models OPT-1.3B …]

Needs torch, transformers, sentence-transformers and numpy, for k-means faiss-gpu; no Ray. Models
have random weights and real shapes, rows have Alpaca's lengths. Utilisation is what the useful
tokens cost (`engine.maths.flops`) over what a large matrix product reaches in the same run, so
padding, logits nobody asked for and waiting all count against us.

`--tiny` runs all of it on the CPU on tiny shapes, to see that the script works: its figures mean
nothing, and none is held against an aim.
"""
