"""The recipe of the embedded demo model: pictures drawn by rule, three small networks, one command.

Stages, each a module: ``scenes`` (what can be asked for) → ``drawing`` (pixels) and ``captions``
(words) → ``autoencoder`` (pixels ↔ latents) → ``shards`` (encoded pairs) → ``denoiser``
(words → latents) → ``export`` (the shipped folder) → ``measure`` (figures).
"""
