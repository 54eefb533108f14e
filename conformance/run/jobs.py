"""Judges the cases of a run one after the other, or in several processes; the verdicts come in the same order."""

from __future__ import annotations

import contextlib
import copyreg
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue

from conformance.adapters.external.lines import ending
from conformance.adapters.registry import AdapterUnavailable, BadOption
from conformance.run.session import Judged, Session
from gemma4_contract import FixtureError

_GRACE = 5  # seconds in which a process closes its port


def judge_each(
    session: Session, cases: Sequence[str], jobs: int, open_session: Callable[[], Session]
) -> Generator[Judged, None, None]:
    """The verdict on each case; `open_session` opens the session again in each of several processes.

    If interrupted, it yields the verdicts it has and raises the interrupt. AdapterUnavailable if a process dies.
    """
    if jobs == 1:
        yield from map(session.judge, cases)
        return
    count = min(jobs, len(cases))
    workers: list[_Worker] = []
    pool = ThreadPoolExecutor(count)  # each thread waits for a process
    try:
        with _ignoring_interrupts():  # the processes inherit this; the run ends them
            for _ in range(count):
                workers.append(_Worker(open_session))
        idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in workers:
            idle.put(worker)
        waiting = deque(pool.submit(_ask_one_of, idle, case_id) for case_id in cases)
        try:
            while waiting:
                yield waiting.popleft().result()
        except KeyboardInterrupt:
            yield from [future.result() for future in waiting if _has_result(future)]
            raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


class _Worker:
    """A process that judges, and our end of the pipe to it."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        spawn = multiprocessing.get_context("spawn")  # MLX and PyTorch do not survive a fork
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs, open_session))
        self._process.start()
        theirs.close()  # otherwise its death would go unnoticed

    def ask(self, case_id: str) -> Judged:
        """The verdict on a case; raises what was raised in the process, AdapterUnavailable if it has died."""
        try:
            self._pipe.send(case_id)
            said: Judged | Exception = self._pipe.recv()
        except (EOFError, OSError):
            self.join()
            how = ending(self._process.exitcode or 0)
            raise AdapterUnavailable(f"--jobs: the process for {case_id} died: {how}; try --jobs 1") from None
        if isinstance(said, Exception):
            raise said
        return said

    def terminate(self) -> None:
        """Terminate the process."""
        with contextlib.suppress(OSError):  # it has died
            self._pipe.send(None)  # one that waits for a case may have slept through the signal
        self._process.terminate()

    def join(self) -> None:
        """Wait for its end, up to a time limit."""
        self._process.join(_GRACE)
        self._process.kill()
        self._process.join()


def _ask_one_of(idle: SimpleQueue[_Worker], case_id: str) -> Judged:
    worker = idle.get()
    try:
        return worker.ask(case_id)
    finally:
        idle.put(worker)


def _work(pipe: Connection, open_session: Callable[[], Session]) -> None:
    """The main function of a process."""
    signal.signal(signal.SIGINT, lambda *_: None)  # the interrupt is still ignored here, but no port inherits that
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # do not die at once: ports are closed at exit
    try:
        with contextlib.suppress(EOFError, OSError):  # the run is gone
            _judge_what_comes(pipe, open_session)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends already


def _judge_what_comes(pipe: Connection, open_session: Callable[[], Session]) -> None:
    """Answer each case with its verdict, or with the error that is to end the run, until None comes."""
    session: Session | None = None
    while (case_id := pipe.recv()) is not None:
        said: Judged | Exception
        try:
            session = session or open_session()
            said = session.judge(case_id)
        except (FixtureError, BadOption, AdapterUnavailable, OSError) as error:
            said = error
        pipe.send(said)


def _has_result(future: Future[Judged]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _made_again(error: FixtureError) -> tuple[Callable[[str], FixtureError], tuple[str]]:
    return partial(FixtureError, got=error.got, expected=error.expected, cure=error.cure), (error.path,)


copyreg.pickle(FixtureError, _made_again)  # otherwise an exception with keyword arguments cannot be sent
