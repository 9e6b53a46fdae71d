"""Published perplexities of LLaMA on C4 in the setting of GaLore, one row per method and per source.

Papers run each other's methods anew, and what is one method then differs by more than most of the claimed gains: tuning
of the baselines, the head in low rank or not. So a method has as many rows as there are sources.
"""

from __future__ import annotations

from typing import Literal

GALORE = "GaLore, arXiv 2403.03507, Table 2"
ALICE = "Alice, arXiv 2502.07752, Tables 2 and 3"
SCALE = "SCALE, arXiv 2506.16659"
SCALE_CODE = "SCALE, its repository, README"
SLTRAIN = "SLTrain, arXiv 2406.02214"
FIRA = "Fira, arXiv 2410.01623"
APOLLO = "APOLLO, arXiv 2412.05270"
COLA = "CoLA, arXiv 2502.10940"
LORO = "LORO (ICLR 2025)"
LOST = "LOST, arXiv 2508.02668"
LOTUS = "comparison table of Lotus"
CHTSL = "CHTsL, its comparison"

SIZES = ("60M", "130M", "350M", "1B")
"""Models, in the order of the values."""

ROWS: tuple[tuple[str, tuple[float | None, ...], str, Literal["V", "S", "M"]], ...] = (
    ("full rank, AdamW", (34.06, 25.08, 18.80, 15.56), GALORE, "V"),
    ("full rank, AdamW", (33.94, 25.03, 19.24, 16.44), ALICE, "V"),
    ("full rank, tuned Adam", (30.05, 23.13, 18.77, 15.79), SCALE, "V"),
    ("full rank, tuned Adam", (30.05, 23.13, 18.77, 16.52), SCALE_CODE, "V"),
    ("full rank, AdamW", (33.21, 24.55, None, None), CHTSL, "V"),
    ("Stable-SPAM", (28.77, 22.20, 16.80, 13.97), SCALE_CODE, "V"),
    ("Muon", (31.6, 24.59, 19.30, 16.08), ALICE, "V"),
    ("Muon", (28.86, 22.20, 16.70, 13.67), SCALE, "V"),
    ("Muon", (28.86, 22.20, 16.70, 14.18), SCALE_CODE, "V"),
    ("GaLore", (34.88, 25.36, 18.95, 15.64), GALORE, "V"),
    ("GaLore, head in low rank", (38.91, 27.18, 21.11, 16.60), ALICE, "V"),
    ("GaLore", (34.58, 25.31, 19.37, 15.05), SCALE, "S"),
    ("GaLore", (34.58, 25.31, 19.37, 15.57), SCALE_CODE, "V"),
    ("Fira", (31.06, 22.73, 17.03, 14.31), f"{FIRA}, as cited in Alice", "V"),
    ("Fira", (33.77, 25.21, 18.93, 15.14), ALICE, "V"),
    ("Fira", (30.34, 22.96, 16.82, 15.10), SCALE_CODE, "V"),
    ("SWAN", (30.00, 22.83, 17.14, 14.42), SCALE_CODE, "V"),
    ("APOLLO", (31.55, 22.94, 16.85, 14.20), APOLLO, "M"),
    ("APOLLO", (30.94, 22.93, 16.75, 14.20), SCALE_CODE, "V"),
    ("APOLLO, by singular vectors", (31.26, 22.84, 16.67, 14.10), ALICE, "V"),
    ("APOLLO-Mini", (31.93, 23.84, 17.18, 14.17), ALICE, "V"),
    ("APOLLO-Mini", (31.85, 23.63, 17.11, 13.48), SCALE, "V"),
    ("APOLLO-Mini", (31.85, 23.63, 17.11, 14.13), SCALE_CODE, "V"),
    ("RACS", (30.25, 22.67, 16.51, 13.52), ALICE, "V"),
    ("Alice-0", (28.83, 21.99, 16.66, 13.97), ALICE, "V"),
    ("Alice", (28.69, 21.95, 16.61, 13.85), ALICE, "V"),
    ("SCALE", (30.81, 22.57, 16.32, 13.49), SCALE, "V"),
    ("SCALE", (30.81, 22.57, 16.32, 14.25), SCALE_CODE, "V"),
    ("SUMO", (None, None, 18.69, 14.68), "SUMO, its repository, README", "V"),
    ("COAP, 89k steps", (None, None, None, 15.62), "COAP, its repository", "V"),
    ("AdaRankGrad", (34.24, 25.22, 18.91, 14.71), LOTUS, "V"),
    ("Lotus", (33.75, 24.87, 18.91, 15.33), LOTUS, "V"),
    ("low rank", (78.18, 45.51, 37.41, 142.53), GALORE, "V"),
    ("LoRA", (34.99, 33.92, 25.58, 19.21), GALORE, "V"),
    ("ReLoRA", (37.04, 29.37, 29.08, 18.33), GALORE, "V"),
    ("SLTrain", (34.15, 26.04, 19.42, 16.14), SLTRAIN, "M"),
    ("SLTrain, 30% of the parameters", (34.89, 26.78, None, None), CHTSL, "V"),
    ("SLTrain, 20% of the parameters", (37.00, 28.28, None, None), CHTSL, "V"),
    ("SLTrain, 10% of the parameters", (41.05, 31.38, None, None), CHTSL, "V"),
    ("CHTsL, 30% of the parameters", (34.19, 26.19, None, None), CHTSL, "V"),
    ("CHTsL, 20% of the parameters", (35.95, 27.59, None, None), CHTSL, "V"),
    ("CHTsL, 10% of the parameters", (39.29, 30.03, None, None), CHTSL, "V"),
    ("CoLA", (34.04, 24.48, 19.40, 15.52), COLA, "M"),
    ("LORO", (33.96, 24.59, 18.84, 15.19), LORO, "M"),
    ("LOST", (32.25, None, None, None), LOST, "S"),
    ("LOST", (None, 24.05, 18.95, 15.02), LOST, "M"),
)
"""Method, perplexity per size (None where the source has none), source, and evidence tag of published.TAGS."""
