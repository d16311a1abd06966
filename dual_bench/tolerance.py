"""How far two makings of the same numbers may be apart where machines differ.

On one machine, with the same packages, the same plan gives the same bytes, and nothing here applies. Elsewhere, or with
another number of threads, sums of float32 are taken in another order, with other instructions, and their last bits
differ. Training repeats that some hundred times, each step from where the last one led, so that weights and scores
differ more than one sum does; what was measured stands in ``docs/repeats.md``. Where two epochs had nearly the same
validation loss another one may be chosen: then scores may differ by more than this, and the records say so.
"""

from __future__ import annotations

SCORES = 1e-3
"""Of a class probability, or, in units of the task's range, of a value."""
METRICS = 1e-2
"""Of a metric of one model under one condition."""
