"""The semantic cache: what finds stored questions like an asked one, and what decides whether an answer serves it."""

import os

# Prompts are embedded and compared one at a time on an event loop: a pool of threads for each would cost more than it
# saves, and the libraries' switches are read when they are loaded, which only modules of this package do.
for _switch, _value in (("OPENBLAS_NUM_THREADS", "1"), ("OMP_NUM_THREADS", "1"), ("TOKENIZERS_PARALLELISM", "false")):
    os.environ.setdefault(_switch, _value)
