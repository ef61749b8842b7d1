"""Files and batches as OpenAI's Batch API keeps them. A batch moves on by one state each time that it is looked at."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from pipelines.calls import Json

from .faults import Fault, FaultPicker
from .replies import reply
from .seen import Seen

_COURSE = ("validating", "in_progress", "finalizing")


class Batches:
    """All files and batches of one server."""

    def __init__(self, seen: Seen, faults: FaultPicker, *, looks: int = 1) -> None:
        """`looks`: how often a batch is looked at in each state before it moves on."""
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._faults_of: dict[str, Fault | None] = {}
        self._looked: dict[str, int] = {}
        self._seen = seen
        self._faults = faults
        self._looks = looks

    def add_file(self, content: bytes, name: str = "requests.jsonl") -> dict[str, Any]:
        file_id = f"file-{len(self.files) + 1}"
        self.files[file_id] = content
        said = {"id": file_id, "object": "file", "bytes": len(content), "created_at": int(time.time())}
        return {**said, "filename": name, "purpose": "batch", "status": "processed"}

    def create(self, asked: Json) -> tuple[dict[str, Any], Fault | None]:
        """A new batch, and the fault that it will meet. Raises KeyError where there is no such file."""
        text = json.dumps(asked)
        content = self.files[asked["input_file_id"]]
        self._seen.batches += 1
        fault = self._faults.pick(number=self._seen.batches, text=text, arrivals=1, batch=True)
        batch_id = f"batch_{self._seen.batches}"
        total = len(content.splitlines())
        self.batches[batch_id] = {
            "id": batch_id,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "completion_window": asked["completion_window"],
            "input_file_id": asked["input_file_id"],
            "metadata": asked.get("metadata"),
            "status": "validating",
            "created_at": int(time.time()),
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "request_counts": {"total": total, "completed": 0, "failed": 0},
        }
        self._faults_of[batch_id] = fault
        self._looked[batch_id] = 0
        return self.batches[batch_id], fault

    def look(self, batch_id: str) -> dict[str, Any]:
        """The batch as it is now. Raises KeyError where there is none."""
        batch = self.batches[batch_id]
        self._looked[batch_id] += 1
        place = self._looked[batch_id] // self._looks
        if batch["status"] in _COURSE:
            if place < len(_COURSE):
                batch["status"] = _COURSE[place]
            else:
                self._end(batch, self._faults_of[batch_id])
        return batch

    def cancel(self, batch_id: str) -> dict[str, Any]:
        batch = self.batches[batch_id]
        if batch["status"] in _COURSE:
            batch["status"] = "cancelled"
        return batch

    def page(self, *, after: str | None, limit: int) -> dict[str, Any]:
        """Batches, newest first, those behind `after`."""
        newest = list(reversed(self.batches.values()))
        start = next((place + 1 for place, batch in enumerate(newest) if batch["id"] == after), 0)
        shown = newest[start : start + limit]
        return {"object": "list", "data": shown, "has_more": start + limit < len(newest)}

    def _end(self, batch: dict[str, Any], fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        if kind in ("batch_failed", "batch_too_large"):
            code = "invalid_json_line" if kind == "batch_failed" else "token_limit_exceeded"
            batch["errors"] = {"object": "list", "data": [{"code": code, "message": "Told to.", "line": 1}]}
            batch["status"] = "failed"
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        good, bad = self._results(lines, kind)
        if good:
            batch["output_file_id"] = self.add_file(b"\n".join(good) + b"\n", "output.jsonl")["id"]
        if bad:
            batch["error_file_id"] = self.add_file(b"\n".join(bad) + b"\n", "errors.jsonl")["id"]
        batch["request_counts"] = {"total": len(lines), "completed": len(good), "failed": len(bad)}
        batch["status"] = {"batch_expired": "expired", "batch_cancelled": "cancelled"}.get(kind, "completed")

    def _results(self, lines: list[Json], kind: str) -> tuple[list[bytes], list[bytes]]:
        good: list[bytes] = []
        bad: list[bytes] = []
        for place, line in enumerate(lines):
            if kind in ("batch_expired", "batch_cancelled") and place >= len(lines) // 2:
                told = {"code": kind, "message": "This request was not executed in time (told to)."}
                bad.append(_line(line, None, told))
                continue
            failed = kind == "batch_partial" and place % 3 == 2
            status, body = self._answer(line["body"], failed)
            (good if status == 200 else bad).append(_line(line, {"status_code": status, "body": body}, None))
        return good, bad

    def _answer(self, body: Json, failed: bool) -> tuple[int, Json]:
        number, arrivals, name = self._seen.arrived(body)
        picked = self._faults.pick(number=number, text=json.dumps(body), arrivals=arrivals)
        answer = reply(body, Fault(kind="server_error") if failed else picked)
        if answer.is_paid:
            self._seen.charged(name)
        self._seen.left(str(answer.status))
        return answer.status, json.loads(answer.body)


def _line(asked: Json, response: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> bytes:
    said = {"id": f"batch_req_{asked['custom_id']}", "custom_id": asked["custom_id"]}
    return json.dumps({**said, "response": response, "error": error}).encode()
