"""Steps that book and undos that cancel, and note what they do."""

from __future__ import annotations


class Journal(list[str]):
    """What was done, in order. `fails_to_cancel`: the days for which an undo fails."""

    def __init__(self) -> None:
        super().__init__()
        self.fails_to_cancel: set[str] = set()

    def book(self, day: str, **more: object) -> str:
        self.append(f"book {day}")
        return f"{day}'s"

    def send(self) -> None:
        self.append("send")

    def cancel(self, booking: str) -> None:
        self._cancel(booking, "")

    def cancel_day(self, booking: str, day: str, **more: object) -> None:
        assert booking == f"{day}'s"
        self._cancel(booking, "".join(f" {name}={value}" for name, value in more.items()))

    async def abook(self, day: str, **more: object) -> str:
        return self.book(day, **more)

    async def acancel(self, booking: str) -> None:
        self.cancel(booking)

    async def acancel_day(self, booking: str, day: str, **more: object) -> None:
        self.cancel_day(booking, day, **more)

    def cancel_all(self, booking: object) -> None:
        self.append(f"cancel all {booking}")

    def _cancel(self, booking: str, more: str) -> None:
        if booking.removesuffix("'s") in self.fails_to_cancel:
            raise OSError(f"can't cancel {booking}")
        self.append(f"cancel {booking}{more}")
