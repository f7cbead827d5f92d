"""Freshly built networks before anything is trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from personalive.engine.engine import Engine
from personalive.engine.state import entering_latents
from personalive.synthetic import Identity, Performance, render
from personalive.training.scratch import build_networks
from personalive.training.shapes import TINY
from support.toy_run import TOY_DETAIL_SHAPE


@torch.no_grad()
def test_a_net_that_predicts_what_is_missing_begins_by_giving_back_what_enters():
    model = dataclasses.replace(TOY_DETAIL_SHAPE.model, schedule=TINY.model.schedule)
    networks = build_networks(dataclasses.replace(TOY_DETAIL_SHAPE, model=model))
    for part in (networks.vae, networks.motion_extractor, networks.motion_encoder):
        part.eval()
    engine = Engine(networks)
    person, performance = Identity.sample(3), Performance.sample(3)
    window = np.stack([render(person, performance.at(i), engine.image_size).image for i in range(4)])
    state = engine.start(window[0])
    conditioning = engine.conditioner.drive(state, window)
    entered = entering_latents(state, conditioning, 4)
    for _ in range(4):  # until the first window has left
        state, leaving = engine.advance(state, conditioning)
        conditioning = engine.conditioner.repeat_last(state)
    noise = (1 - engine.schedule.alphas_cumprod[engine.config.schedule.levels[-1]]).sqrt()
    assert 0.5 * noise < (leaving.latents - entered).std() < 1.5 * noise < 0.1 * entered.std()
