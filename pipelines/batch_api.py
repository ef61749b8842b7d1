"""The same requests through OpenAI's Batch API: at half the price, within a day, and never submitted twice.

    outcome = await run_batches(requests, api=client, answers=store, out=out, sleep=asyncio.sleep, on_progress=print)

Each batch has a small file, `<out>/batches/<nonce>.json`, written before and after every step, so that a driver that is
killed finds its batches again. The one step that cannot be undone is to create a batch. It is announced in the file
first, and where it may or may not have happened, the account's batches are searched for the nonce, which went along as
metadata, before it is repeated. Every good answer is stored under its request's fingerprint, which is its custom_id;
whatever a batch leaves unanswered (expired, cancelled, failed) is returned, to be sent one by one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Protocol

from lgsrr import storage

from .answers import AnswerStore
from .calls import Answer, CallError, Fatal, Json, Request, Transient, Usage

FOLDER = "batches"
NONCE = "lgsrr_batch"
"""Key of a batch's metadata under which its nonce stands."""
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})

_FATAL_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "model_not_found"}
_ENQUEUED_TOO_MUCH = "token_limit_exceeded"
_WRITERS = 16


class BatchApi(Protocol):
    """The verbs of the Batch API; what they give is the API's own JSON. They raise CallError, and retry nothing."""

    def body(self, request: Request) -> dict[str, Json]:
        """The request as it goes over the wire."""

    def answer(self, body: Json, fingerprint: str, *, price_factor: float = 1.0) -> Answer:
        """The answer in a completion's JSON; raises Refused or Transient where it is none."""

    async def upload(self, content: bytes, name: str) -> Json: ...

    async def create_batch(self, file_id: str, metadata: Mapping[str, str]) -> Json: ...

    async def batch(self, batch_id: str) -> Json: ...

    async def batches(self, after: str | None = None) -> Json: ...

    async def download(self, file_id: str) -> bytes: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Limits of the API, and how patiently it is asked."""

    requests: int = 50_000
    """Requests in one batch."""
    file_bytes: int = 200_000_000
    """Size of its file."""
    poll_s: float = 30.0
    """Seconds between two looks at the batches."""
    retry_s: float = 10.0
    """Seconds until a step that failed in passing is tried again; also how long a listing may lag behind."""
    attempts: int = 6
    """How often a step is tried."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """What the batches brought."""

    answered: int
    """Requests of this run whose answers came from batches."""
    left: list[str]
    """Fingerprints of the requests without an answer, to be sent live."""
    usage: Usage
    """What was charged, answers that cannot be used among it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """One batch as it stands."""

    batch_id: str
    status: str
    completed: int
    failed: int
    total: int
    reason: str = ""
    """Why it failed, where it did."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submission:
    """A batch as its file says. Steps: planned → creating → created → folded."""

    nonce: str
    fingerprints: tuple[str, ...]
    step: str = "planned"
    batch_id: str | None = None

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Submission:
        return cls(nonce=uuid.uuid4().hex, fingerprints=tuple(request.fingerprint for request in requests))


class Submissions:
    """The files of the batches under one output."""

    def __init__(self, out: str) -> None:
        self._folder = storage.join(out, FOLDER)

    def keep(self, submission: Submission) -> Submission:
        content = json.dumps(dataclasses.asdict(submission)).encode()
        storage.write_bytes(storage.join(self._folder, f"{submission.nonce}.json"), content)
        return submission

    def all(self) -> list[Submission]:
        found = [json.loads(content) for content in storage.read_all(storage.part_files(self._folder, ".json"))]
        return [Submission(**{**fields, "fingerprints": tuple(fields["fingerprints"])}) for fields in found]


async def run_batches(
    requests: Iterable[Request],
    *,
    api: BatchApi,
    answers: AnswerStore,
    out: str,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    on_progress: Callable[[BatchProgress], None] = lambda progress: None,
    limits: BatchLimits = BatchLimits(),
) -> BatchOutcome:
    """Answer requests through batches, those that an earlier run has submitted among them, and wait for their end.

    What a batch was asked once and left open is not submitted again. Raises Fatal where the account or the model is
    at fault, Transient where the API cannot be reached; the same call then continues.
    """
    asked = {request.fingerprint: request for request in requests}
    known = await asyncio.to_thread(answers.fingerprints)
    run = _Run(
        api=api,
        answers=answers,
        submissions=Submissions(out),
        sleep=sleep,
        on_progress=on_progress,
        limits=limits,
        unanswered={name: request for name, request in asked.items() if name not in known},
    )
    await run.to_the_end()
    left = [name for name in asked if name not in run.answered and name not in known]
    return BatchOutcome(answered=len(run.answered & asked.keys()), left=left, usage=run.usage)


@dataclasses.dataclass(kw_only=True)
class _Run:
    """One run over the batches of one output."""

    api: BatchApi
    answers: AnswerStore
    submissions: Submissions
    sleep: Callable[[float], Awaitable[None]]
    on_progress: Callable[[BatchProgress], None]
    limits: BatchLimits
    unanswered: dict[str, Request]
    """What this run was asked for and has no answer in the store, by fingerprint."""
    answered: set[str] = dataclasses.field(default_factory=set)
    usage: Usage = dataclasses.field(default_factory=Usage)
    open: list[Submission] = dataclasses.field(default_factory=list)
    waiting: list[list[Request]] = dataclasses.field(default_factory=list)
    """Requests of batches that the account has no room for until another ends."""

    async def to_the_end(self) -> None:
        earlier = self.submissions.all()
        self.open = [await self._found_again(each) for each in earlier if each.step != "folded"]
        seen = {name for each in earlier for name in each.fingerprints}
        new = (request for name, request in self.unanswered.items() if name not in seen)
        for part in self._parts(new):
            await self._submit(part)
        while self.open or self.waiting:
            await self._look_at_all()
            if self.waiting and not self.open:
                await self._submit(self.waiting.pop(0))
            elif self.open:
                await self.sleep(self.limits.poll_s)

    def _parts(self, requests: Iterable[Request]) -> Iterator[list[Request]]:
        """Divide by model, as a batch has one, then by the limits of a file."""
        by_model: dict[str, list[Request]] = {}
        for request in requests:
            by_model.setdefault(request.model, []).append(request)
        for same in by_model.values():
            part: list[Request] = []
            size = 0
            for request in same:
                line = len(self._line(request)) + 1
                if part and (len(part) == self.limits.requests or size + line > self.limits.file_bytes):
                    yield part
                    part, size = [], 0
                part.append(request)
                size += line
            yield part

    def _line(self, request: Request) -> bytes:
        asked = {"custom_id": request.fingerprint, "method": "POST", "url": "/v1/chat/completions"}
        return json.dumps({**asked, "body": self.api.body(request)}, ensure_ascii=False).encode()

    async def _submit(self, part: list[Request]) -> None:
        """Upload and create one batch; every step is on the disk before the next."""
        submission = self.submissions.keep(Submission.of(part))
        self.open.append(await self._created(submission, part))

    async def _created(self, submission: Submission, part: list[Request]) -> Submission:
        content = b"".join(self._line(request) + b"\n" for request in part)
        name = f"{submission.nonce}.jsonl"
        file_id = (await self._patiently(self.api.upload, content, name))["id"]
        submission = self.submissions.keep(dataclasses.replace(submission, step="creating"))
        batch_id = (await self._patiently(self._created_once, file_id, submission.nonce))["id"]
        return self.submissions.keep(dataclasses.replace(submission, step="created", batch_id=batch_id))

    async def _created_once(self, file_id: str, nonce: str) -> Json:
        try:
            return await self.api.create_batch(file_id, {NONCE: nonce})
        except Transient:  # it may have been created, and only the word of it lost
            await self.sleep(self.limits.retry_s)
            found = await self._search(nonce)
            if found is None:
                raise
            return found

    async def _found_again(self, submission: Submission) -> Submission:
        """A batch of an earlier run: as its file says, as the account's list says, else made anew."""
        if submission.step == "created":
            return submission
        if submission.step == "creating":
            await self.sleep(self.limits.retry_s)  # a list may lag behind
            found = await self._search(submission.nonce)
            if found is not None:
                return self.submissions.keep(dataclasses.replace(submission, step="created", batch_id=found["id"]))
        part = [self.unanswered[name] for name in submission.fingerprints if name in self.unanswered]
        if not part:
            return self.submissions.keep(dataclasses.replace(submission, step="folded", fingerprints=()))
        kept = dataclasses.replace(submission, fingerprints=tuple(request.fingerprint for request in part))
        return await self._created(self.submissions.keep(kept), part)

    async def _search(self, nonce: str) -> Json | None:
        """The account's batch with that nonce, or None."""
        after: str | None = None
        while True:
            page = await self._patiently(self.api.batches, after)
            for batch in page["data"]:
                if (batch.get("metadata") or {}).get(NONCE) == nonce:
                    return batch
            if not page.get("has_more") or not page["data"]:
                return None
            after = page["data"][-1]["id"]

    async def _look_at_all(self) -> None:
        still_open = []
        for submission in self.open:
            if submission.step == "folded":
                continue
            batch = await self._patiently(self.api.batch, submission.batch_id)
            self.on_progress(_progress(batch))
            if batch["status"] not in ENDED:
                still_open.append(submission)
            elif batch["status"] == "failed":
                self._set_aside(submission, batch)
            else:
                await self._fold(submission, batch)
        self.open = still_open

    def _set_aside(self, submission: Submission, batch: Json) -> None:
        """A batch that was not begun, and cost nothing. Where the queue was full, its halves wait for their turn."""
        codes = {str(error.get("code")) for error in (batch.get("errors") or {}).get("data") or ()}
        if codes & _FATAL_CODES:
            self._forget(submission)
            advice = "Check the account and the model's name; the same command continues."
            raise Fatal(f"Batch {batch['id']} was not begun: {_progress(batch).reason}", advice=advice)
        part = [self.unanswered[name] for name in submission.fingerprints if name in self.unanswered]
        if _ENQUEUED_TOO_MUCH in codes and len(part) > 1:
            self._forget(submission)
            middle = len(part) // 2
            self.waiting += [part[:middle], part[middle:]]
        else:
            self.submissions.keep(dataclasses.replace(submission, step="folded"))

    def _forget(self, submission: Submission) -> None:
        self.submissions.keep(dataclasses.replace(submission, step="folded", fingerprints=()))

    async def _fold(self, submission: Submission, batch: Json) -> None:
        """Store every good answer, then note that the batch is done with."""
        good = []
        for file_id in filter(None, (batch.get("output_file_id"), batch.get("error_file_id"))):
            content = await self._patiently(self.api.download, file_id)
            good += [answer for line in content.splitlines() if (answer := self._answer_in(line)) is not None]
        for start in range(0, len(good), _WRITERS):
            await asyncio.gather(
                *(asyncio.to_thread(self.answers.put, answer) for answer in good[start : start + _WRITERS])
            )
        self.answered |= {answer.fingerprint for answer in good}
        self.submissions.keep(dataclasses.replace(submission, step="folded"))

    def _answer_in(self, line: bytes) -> Answer | None:
        """The answer in a line of a result file, or None where it is none; what it cost is counted either way."""
        try:
            result = json.loads(line)
            response = result.get("response") or {}
            if response.get("status_code") != 200:
                return None
            answer = self.api.answer(response["body"], result["custom_id"], price_factor=0.5)
        except CallError as error:
            self.usage += error.usage
            return None
        except (ValueError, KeyError, AttributeError):
            return None
        self.usage += answer.usage
        return answer

    async def _patiently(self, step: Callable[..., Awaitable[Json]], *given: Json) -> Json:
        """Take a step, again where it fails in passing."""
        for attempt in range(1, self.limits.attempts + 1):
            try:
                return await step(*given)
            except Transient as error:
                if attempt == self.limits.attempts:
                    raise
                await self.sleep(error.retry_after_s or self.limits.retry_s * attempt)
        raise AssertionError("not reached")


def _progress(batch: Json) -> BatchProgress:
    counts = batch.get("request_counts") or {}
    errors = (batch.get("errors") or {}).get("data") or ()
    return BatchProgress(
        batch_id=batch["id"],
        status=batch["status"],
        completed=counts.get("completed") or 0,
        failed=counts.get("failed") or 0,
        total=counts.get("total") or 0,
        reason="; ".join(f"{error.get('code')}: {error.get('message')}" for error in errors),
    )
