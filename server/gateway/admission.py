"""Bounds on what may run or wait. Knows requests and tokens only."""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.server.gateway.errors import ApiError


@dataclass(slots=True)
class Ticket:
    """A place among the admitted requests; give it back once."""

    admission: Admission
    num_reqs: int
    num_tokens: int

    def release(self) -> None:
        """Free the place; further calls do nothing."""
        self.admission.num_reqs -= self.num_reqs
        self.admission.num_tokens -= self.num_tokens
        self.num_reqs = self.num_tokens = 0

    def change(self, num_reqs: int, num_tokens: int, param: str = "prompt") -> None:
        """Exchange the place for another, when it is known what is needed; else as `admit`."""
        self.release()
        ticket = self.admission.admit(num_reqs, num_tokens, param)
        self.num_reqs, self.num_tokens = ticket.num_reqs, ticket.num_tokens


@dataclass(slots=True)
class Admission:
    """Bounds requests in flight, running or waiting, by number and by tokens."""

    max_reqs: int
    max_tokens: int
    num_reqs: int = 0
    num_tokens: int = 0

    def admit(self, num_reqs: int, num_tokens: int, param: str = "prompt") -> Ticket:
        """A ticket, or 429; 400 for a request that could never be admitted, because of `param`."""
        if num_reqs > self.max_reqs:
            message = f"{num_reqs} answers exceed the queue of {self.max_reqs}; ask for fewer"
            raise ApiError(400, message, code="invalid_value", param=param)
        # One large request may pass an idle server; the token bound is for what piles up.
        if self.num_reqs + num_reqs > self.max_reqs:
            raise _full(f"{self.num_reqs} of {self.max_reqs} answers run or wait")
        if self.num_reqs and self.num_tokens + num_tokens > self.max_tokens:
            raise _full(f"what runs or waits brings {self.num_tokens} of {self.max_tokens} tokens")
        self.num_reqs += num_reqs
        self.num_tokens += num_tokens
        return Ticket(self, num_reqs, num_tokens)


def _full(why: str) -> ApiError:
    return ApiError(429, f"the queue is full: {why}; try again later", code="queue_full")
