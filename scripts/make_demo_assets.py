"""Render the demo's portrait and driving clip: two synthetic people that training never sees.

python scripts/make_demo_assets.py [--portrait SEED] [--driver SEED] [--performance SEED]
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

from personalive.evaluation.config import EvaluationConfig
from personalive.media import VideoWriter, save_png
from personalive.synthetic import Identity, Performance, render

ASSETS = Path(__file__).parents[1] / "src" / "personalive" / "assets" / "demo"
SIZE_PX, FPS, SECONDS = 256, 25, 6
FIRST_SEED = EvaluationConfig.first_seed


def main() -> None:
    """Write portrait.png and driving.mp4."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portrait", type=int, default=FIRST_SEED + 89)
    parser.add_argument("--driver", type=int, default=FIRST_SEED + 93)
    parser.add_argument("--performance", type=int, default=FIRST_SEED + 247)
    args = parser.parse_args()
    ASSETS.mkdir(parents=True, exist_ok=True)
    portrait = render(Identity.sample(args.portrait), Performance.frontal_neutral(), SIZE_PX)
    save_png(ASSETS / "portrait.png", portrait.image)
    driver, performance = Identity.sample(args.driver), Performance.sample(args.performance, fps=FPS)
    with VideoWriter(ASSETS / "driving.mp4", SIZE_PX, SIZE_PX, time_base=Fraction(1, FPS), fps=Fraction(FPS)) as film:
        for frame in range(SECONDS * FPS):
            image = render(driver, performance.at(frame), SIZE_PX).image
            film.write(image, Fraction(frame, FPS), Fraction(1, FPS))


if __name__ == "__main__":
    main()
