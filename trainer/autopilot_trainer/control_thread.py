"""The thread that lets the control plane read, judge and expire, off the training thread."""

import threading

from autopilot.control import ControlPlane

_ATTENTIVE, _CALM = 0.05, 1.0
"""Seconds between ticks. Each wakes the processor's caches up, which costs more than reading a row,
so while nothing is the matter rows are read in larger helpings; a loss or a gradient norm that
stands out wakes the thread."""


class ControlThread:
    """Ticks a control plane until stopped; a fault is reported and the next tick comes.

    Attributes:
        wake: Let the next tick come at once. However often it is called, no more ticks come of it
            than while the plane is attentive.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._stop = threading.Event()
        self._woken = threading.Event()
        self.wake = self._woken.set
        self._thread = threading.Thread(target=self._run, name="autopilot-control", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, within a few seconds at most."""
        self._stop.set()
        self._woken.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        hurried = False
        while not self._stop.is_set():
            if hurried or self._plane.attentive:
                self._stop.wait(_ATTENTIVE)
                hurried = False
            else:
                hurried = self._woken.wait(_CALM)
            self._woken.clear()
            if self._stop.is_set():
                return
            try:
                self._plane.tick()
            except Exception as error:  # training goes on; the next tick may work again
                self._plane.fault(f"control plane: {error!r}")
                self._stop.wait(1.0)
