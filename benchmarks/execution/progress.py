"""Progress in the terminal while runs are carried out: a bar for all with its ETA, and one for each in progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Report = Callable[[int, int], None]
"""(steps done, of all)."""
_WITHOUT_ESTIMATE = 60.0  # seconds: weight of a run where nothing is known yet


class Stopped(Exception):
    """Raised where a run reports its progress after the call has been interrupted, so that it ends."""


class Watch:
    """Progress of several runs, weighted by the seconds that each is expected to take.

    Args:
        console: where the lines are shown.
        seconds: what each run will take, None where nobody knows.
    """

    def __init__(self, console: Console, seconds: Sequence[float | None]) -> None:
        self._weights = [_WITHOUT_ESTIMATE if value is None else value for value in seconds]
        self._shares = [0.0] * len(self._weights)
        self._stopped = False
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._all = self._bar.add_task(self._counted(), total=sum(self._weights))

    def __enter__(self) -> Watch:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def console(self) -> Console:
        """Console on which lines can be printed without disturbing the bars."""
        return self._bar.console

    def stop(self) -> None:
        """Make every run in progress end at its next report."""
        self._stopped = True

    @contextmanager
    def run(self, number: int, label: str) -> Iterator[Report]:
        """The line of one run while it is in progress; gives the function that it reports (done, total) to.

        Raises:
            Stopped: from that function, after `stop`.
        """

        def leave_if_stopped() -> None:
            if self._stopped:
                raise Stopped(f"{label} was interrupted")

        def report(done: int, total: int) -> None:
            leave_if_stopped()
            share = done / max(total, 1)
            self._bar.update(line, description=f"{label} step {done}/{total}", completed=share)
            self._update(number, share)

        leave_if_stopped()
        line = self._bar.add_task(label, total=1.0)
        try:
            yield report
        except KeyboardInterrupt:
            self.stop()  # at once, or the next run would begin before the interrupt is seen elsewhere
            raise
        finally:
            self._bar.remove_task(line)
            self._update(number, 1.0)

    def _update(self, number: int, share: float) -> None:
        self._shares[number] = share
        done = sum(weight * part for weight, part in zip(self._weights, self._shares, strict=True))
        self._bar.update(self._all, description=self._counted(), completed=done)

    def _counted(self) -> str:
        return f"{sum(share == 1.0 for share in self._shares)}/{len(self._shares)} runs"
