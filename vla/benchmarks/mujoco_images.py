"""Images of MuJoCo models, for benchmarks that render an image when it is read."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

from vla.errors import ConfigError

_BACKENDS = ("cgl", "egl", "glfw", "osmesa")  # of OpenGL


def backend() -> str:
    """The OpenGL backend of the variable MUJOCO_GL, which becomes "egl" if it is not set.

    Raises:
        ConfigError: an unknown backend.
    """
    name = os.environ.setdefault("MUJOCO_GL", "egl").lower()
    if name not in _BACKENDS:
        raise ConfigError(f"MUJOCO_GL={name}: expected one of {', '.join(_BACKENDS)}")
    return name


class ModelRenderer:
    """Renders square images of one MuJoCo model.

    Args:
        model: ``mujoco.MjModel``.
        size: side of the images, px.
        fast: without shadows, reflections and multisampling.
        hidden: groups of geoms that are not drawn.

    Raises:
        ConfigError: no OpenGL context can be made.
    """

    def __init__(self, model: Any, size: int, fast: bool, hidden: tuple[int, ...] = ()) -> None:
        import mujoco

        self.fast = fast
        frame = model.vis.global_
        frame.offwidth, frame.offheight = (
            max(size, side) for side in (frame.offwidth, frame.offheight)
        )
        if fast:  # also saves the memory of the shadow map
            model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        self._effects = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)
        self._options = mujoco.MjvOption()
        for group in hidden:
            self._options.geomgroup[group] = 0
        chosen = backend()
        try:
            # MuJoCo chooses the context when it is imported, which may be before MUJOCO_GL is set.
            context: Any = importlib.import_module("mujoco.gl_context")
            context.GLContext = importlib.import_module(f"mujoco.{chosen}").GLContext
            # With these attributes it can also be deleted if its constructor failed.
            deletable = {"_gl_context": None, "_mjr_context": None}
            self._renderer: Any = type("Renderer", (mujoco.Renderer,), deletable)(model, size, size)
        except Exception as error:  # the OpenGL libraries raise any exception
            raise ConfigError(
                f"no OpenGL context with MUJOCO_GL={chosen} ({type(error).__name__}: {error}); "
                "install the system's EGL library, or OSMesa and set MUJOCO_GL=osmesa"
            ) from error

    def image(self, data: Any, camera: str) -> np.ndarray:
        """The upright image (S, S, 3) uint8 of a camera; ``data`` is ``mujoco.MjData``."""
        self._renderer.update_scene(data, camera, self._options)
        if self.fast:
            for effect in self._effects:
                self._renderer.scene.flags[effect] = 0
        image: np.ndarray = self._renderer.render()
        return image

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()
