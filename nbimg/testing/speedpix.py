"""A local SpeedPix: published workflows that queue, run and fail on 127.0.0.1, behind a signed gateway.

Stage: tests, and trials without a key. In: the requests of a client of the SpeedPix API. Out: what the
real service answers, with real (small) pictures and videos on a second port, and a ledger of accepted
tasks, so that a test can assert that no task was paid for twice. It connects to nothing.

Sources: https://help.aliyun.com/en/document_detail/2844525.html to 2844527 and 2844655, read 2026-11-22,
and the official Python client 1.0.4. Where neither says how the service behaves, the comment says
"assumed".
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from nbimg.testing.pictures import render_picture, size_px
from nbimg.testing.rates import Bucket, RateLimit
from nbimg.testing.server import Fault, LocalServer, Recorded, Reply
from nbimg.testing.speedpix_gateway import Gateway, refusal
from nbimg.testing.speedpix_jobs import WORKFLOWS, SpeedPixJob, SpeedPixOutcome, Workflow
from nbimg.testing.speedpix_store import FileStore, TemporaryFile, media_type, xml_error
from nbimg.testing.videos import render_video

__all__ = ["FAKE_APP_KEY", "FAKE_APP_SECRET", "SAID", "SpeedPixServer"]

FAKE_APP_KEY = "fake-speedpix-key-000001"
FAKE_APP_SECRET = "fake-speedpix-secret-000001"
"""The only credential that the server accepts unless told otherwise; no real one looks like this."""

SAID: Mapping[str, str] = {
    "refused": "输入内容违规,请修改后重试",
    "refused_output": "content security check failed: sensitive content",
    "failed": "node 3 KSampler: execution error",
    "invalid": "参数错误: steps must be an integer",
    "missing": "工作流不存在",
    "busy": "系统繁忙,请稍后再试",
    "crowded": "并发任务数超过限制",
    "money": "账户余额不足",
    "error": "system error",
    "no_task": "任务不存在",
}
"""Words of business errors, by a short name. No page lists them: all are assumed."""


def _good(data: Mapping[str, Any]) -> Reply:
    return Reply.of({"status": 10, "apiInvokeId": secrets.token_hex(8), "data": data})


def _bad(message: str, code: str = "BIZ_ERROR") -> Reply:
    # as seen by the official client: HTTP 200, the service's own words in the sub-message
    return Reply.of(
        {
            "status": 20,
            "apiInvokeId": secrets.token_hex(8),
            "errCode": "INVOKE_FAILED",
            "errMessage": "service invoke failed",
            "subErrCode": code,
            "subErrMessage": message,
            "data": None,
        }
    )


class SpeedPixServer(LocalServer):
    """The API on `base_url`, and the store of files on `url("files")`, another port.

    All knobs are attributes, too, and may be turned while it runs. Seconds are those of the server's
    clock, see `LocalServer`.

    Args:
        app_key: The key that is accepted.
        app_secret: Its secret.
        workflows: What there is to run.
        outcomes: How jobs will go, see `SpeedPixOutcome`; more with `expect`.
        waiting_s: How long jobs queue.
        running_s: How long jobs run.
        success: How the progress spells success; its page says `successed`, the other `succeeded`.
        limit: Of creates; None: none is known.
        throttle: The status of a throttled request: 403 on classic gateways, 429 on newer ones.
        body_limit_bytes: Of a request; assumed.
        upload_s: How long a signed address for an upload is good; assumed.
        retention_s: How long outputs and uploads can be fetched; "has a validity period", assumed a day.
        image_side_px: Long side of pictures whose size was not asked for.
        faults: See `Fault`. Variants for `error`: a name in `speedpix_gateway.REFUSALS`, or with status
            200 one in `SAID`.
        latency_s: See `LocalServer`.
        speed: See `LocalServer`.
    """

    def __init__(
        self,
        *,
        app_key: str = FAKE_APP_KEY,
        app_secret: str = FAKE_APP_SECRET,
        workflows: Iterable[Workflow] = WORKFLOWS,
        outcomes: Iterable[SpeedPixOutcome] = (),
        waiting_s: float = 0.002,
        running_s: float = 0.005,
        success: Literal["succeeded", "successed"] = "successed",
        limit: RateLimit | None = None,
        throttle: Literal[403, 429] = 403,
        body_limit_bytes: int = 2 * 1024 * 1024,
        upload_s: float = 600.0,
        retention_s: float = 86400.0,
        image_side_px: int = 64,
        faults: Iterable[Fault] = (),
        latency_s: float | Callable[[Recorded], float] = 0.0,
        speed: float = 1.0,
    ) -> None:
        """Set it up, see the class; nothing is bound before `start`."""
        super().__init__(hosts=("api", "files"), faults=faults, latency_s=latency_s, speed=speed)
        self.gateway = Gateway(app_key, app_secret)
        self.workflows = {workflow.id: workflow for workflow in workflows}
        self.waiting_s = waiting_s
        self.running_s = running_s
        self.success = success
        self.limit = limit
        self.throttle = throttle
        self.body_limit_bytes = body_limit_bytes
        self.upload_s = upload_s
        self.retention_s = retention_s
        self.image_side_px = image_side_px
        self._outcomes = list(outcomes)
        self._jobs: dict[str, SpeedPixJob] = {}
        self._store = FileStore(self.now_s)
        self._bucket: Bucket | None = None

    # What a test asks.

    @property
    def jobs(self) -> list[SpeedPixJob]:
        """Every task that was accepted, oldest first, whether or not its client learned of it."""
        return list(self._jobs.values())

    @property
    def uploads(self) -> list[TemporaryFile]:
        """The files that were sent, oldest first."""
        return [file for file in self._store.files.values() if file.data is not None]

    @property
    def leaks(self) -> list[Recorded]:
        """Requests that carried a credential to the store of files; should be none."""
        return [c for c in self.requests if c.host == "files" and "x-ca-key" in c.headers]

    def expect(self, *outcomes: SpeedPixOutcome) -> None:
        """Add outcomes of jobs to come, behind those that are left."""
        with self._lock:
            self._outcomes.extend(outcomes)

    # Routes.

    def answer(self, call: Recorded) -> Reply:
        """Answer a request to the gateway or to the store of files."""
        if call.host == "files":
            if call.method == "PUT":
                return self._store.put(call, self.upload_s)
            return self._deliver(call)
        refused = self.gateway.check(call)
        if refused is not None:
            return refused
        if len(call.body) > self.body_limit_bytes:
            return refusal("large")
        try:
            body = call.json()
        except ValueError:
            return _bad(SAID["invalid"])
        match (call.method, call.path):
            case ("POST", "/scc/comfy_prompt"):
                return self._submit(call, body)
            case ("POST", "/scc/comfy_get_progress"):
                return self._about(body, self._progress)
            case ("POST", "/scc/comfy_get_result"):
                return self._about(body, self._result)
            case ("POST", "/scc/sp_create_temp_file_upload_sign"):
                signed = self._store.sign(self.url("files"), body, self.upload_s)
                return _bad(SAID["invalid"]) if signed is None else _good(signed)
        return refusal("absent")  # there is no cancel and no list

    def error_reply(self, fault: Fault) -> Reply:
        """Make what the service, its gateway or its store of files says."""
        if fault.status == 200:
            return _bad(SAID[fault.variant or "error"])
        usual = {401: "signature", 403: "throttled", 429: "throttled_new", 413: "large"}
        name = fault.variant or usual.get(fault.status, "broken" if fault.status >= 500 else "")
        if not name:
            return xml_error(fault.status, "NoSuchKey")
        reply = refusal(name, retry_after_s=fault.retry_after_s)
        return replace(reply, status=fault.status)

    # Tasks.

    def _submit(self, call: Recorded, body: Mapping[str, Any]) -> Reply:
        if self._throttled():
            return refusal("throttled" if self.throttle == 403 else "throttled_new")
        workflow = self.workflows.get(str(body.get("workflow_id")))
        inputs = body.get("inputs")
        if workflow is None:
            return _bad(SAID["missing"], "WORKFLOW_NOT_EXIST")
        version = body.get("version_id") or workflow.aliases.get(
            str(body.get("alias_id") or "main")
        )
        if version not in {*workflow.versions, *(v[1:] for v in workflow.versions)}:
            return _bad("工作流版本不存在", "VERSION_NOT_EXIST")
        if not isinstance(inputs, dict) or not all(inputs.get(n) for n in workflow.required):
            return _bad(f"参数错误: {', '.join(workflow.required)} is required", "INVALID_PARAM")
        randomise = body.get("randomise_seeds") is True
        job = self._accept(
            workflow,
            str(version),
            call.headers.get("X-SP-RESOURCE-CONFIG-ID", ""),
            inputs,
            randomise,
        )
        return _good({"taskId": job.id, "status": "waiting", "estimatedDurationInSeconds": 12.5})

    def _throttled(self) -> bool:
        if self.limit is None:
            return False
        if self._bucket is None or self._bucket.limit != self.limit:
            self._bucket = Bucket(self.limit, self.now_s())
        return self._bucket.take(self.now_s()) > 0

    def _accept(
        self,
        workflow: Workflow,
        version: str,
        resource: str,
        inputs: dict[str, Any],
        randomise: bool,
    ) -> SpeedPixJob:
        outcome = self._take_outcome(workflow, inputs)
        drawn = secrets.token_hex(8) if randomise else ""
        waiting_s, running_s = outcome.waiting_s, outcome.running_s
        job = SpeedPixJob(
            id=secrets.token_hex(12),
            workflow=workflow,
            version=version,
            resource=resource or "default",
            inputs=inputs,
            randomise=randomise,
            key=json.dumps([workflow.id, inputs, drawn], sort_keys=True),
            created_s=self.now_s(),
            waiting_s=self.waiting_s if waiting_s is None else waiting_s,
            running_s=self.running_s if running_s is None else running_s,
            outcome=outcome,
            clock=self.now_s,
        )
        self._jobs[job.id] = job
        return job

    def _take_outcome(self, workflow: Workflow, inputs: Mapping[str, Any]) -> SpeedPixOutcome:
        for name in workflow.files:  # found out while running, as ComfyUI does
            trouble = self._store.trouble(inputs.get(name), self.url("files"), self.retention_s)
            if trouble:
                return SpeedPixOutcome(error=f"{name}: {trouble}")
        with self._lock:
            for place, outcome in enumerate(self._outcomes):
                if outcome.matches(inputs):
                    if outcome.times is not None:
                        left = replace(outcome, times=outcome.times - 1)
                        self._outcomes[place : place + 1] = [left] if left.times else []
                    return outcome
        return SpeedPixOutcome()

    def _over(self, since_s: float) -> bool:
        return self.now_s() >= since_s + self.retention_s

    def _about(self, body: Any, show: Callable[[SpeedPixJob], Reply]) -> Reply:
        job = self._jobs.get(str(body.get("taskId"))) if isinstance(body, dict) else None
        return _bad(SAID["no_task"], "TASK_NOT_EXIST") if job is None else show(job)

    def _progress(self, job: SpeedPixJob) -> Reply:
        status: str = job.status
        left_s = max(0.0, job.completed_s - self.now_s())
        data = {
            "taskId": job.id,
            "status": self.success if status == "succeeded" else status,
            "progress": job.progress,
            "etaRelative": int(left_s),
            "message": "",
            "state": {"nodeLabel": "KSampler", "step": int(20 * job.progress), "maxSteps": 20},
        }
        if status == "waiting":
            ahead = [other for other in self.jobs if other.status == "waiting"]
            data["lastQueueRemaining"] = ahead.index(job) if job in ahead else 0
        return _good(data)

    def _result(self, job: SpeedPixJob) -> Reply:
        status, error = job.status, job.outcome.error
        data: dict[str, Any] = {"taskId": job.id, "status": status}
        if status == "failed" and job.outcome.told == "envelope":
            return _bad(error or "failed", "TASK_FAILED")
        if status == "failed" and job.outcome.told == "data":
            data["message"] = error
        if status in {"succeeded", "failed"}:
            data["taskDuration"] = int(job.running_s * 1000)
            data["taskBeginTime"] = int(job.started_s * 1000)
            data["taskEndTime"] = int(job.completed_s * 1000)
        if status == "succeeded":
            data |= self._outputs(job)
        return _good(data)

    def _outputs(self, job: SpeedPixJob) -> dict[str, Any]:
        form = job.workflow.file_format
        count = job.count
        names = [f"{job.id}/out-{number}.{form}" for number in range(count)]
        # signed anew each time that it is asked for
        urls = [
            f"{self.url('files')}/out/{name}?Signature={secrets.token_hex(4)}" for name in names
        ]
        width_px, height_px = size_px(job.inputs, self.image_side_px)
        fields = [
            {
                "url": url,
                "type": media_type(form).partition("/")[0],
                "filename": name.rpartition("/")[2],
                "object_key": f"out/{name}",
                "format": form,
                "width": width_px,
                "height": height_px,
            }
            for name, url in zip(names, urls, strict=True)
        ]
        if job.workflow.cover:
            for field in fields:
                field["cover"] = f"{self.url('files')}/out/{job.id}/cover-0.png?Signature=1"
        shown = job.workflow.outputs
        found: dict[str, Any] = {}
        if shown in {"images", "both"}:
            found["images"] = [f"{url}&again=1" for url in urls] if shown == "both" else urls
        if shown in {"result", "both"}:
            found["result"] = {"images": fields[0] if count == 1 else fields, "text": "a caption"}
        return found

    # The store of files.

    def _deliver(self, call: Recorded) -> Reply:
        """Serve `/out/<task>/out-<number>.<extension>`."""
        parts = call.path.strip("/").split("/")
        job = self._jobs.get(parts[1]) if len(parts) == 3 and parts[0] == "out" else None
        name = re.fullmatch(r"(?:out|cover)-(\d)\.(\w+)", parts[-1])
        there = name is not None and job is not None and int(name[1]) < job.count
        if job is None or name is None or not there or job.status != "succeeded":
            return xml_error(404, "NoSuchKey")
        if self._over(job.completed_s):
            return xml_error(403, "AccessDenied")
        if parts[-1].startswith("cover-"):
            return Reply(body=render_picture(job.key, "png", 32, 18), content_type="image/png")
        form, key = job.workflow.file_format, f"{job.key} {name[1]}"
        render = render_video if form in {"mp4", "webm"} else render_picture
        data = render(key, form, *size_px(job.inputs, self.image_side_px))
        return Reply(body=data, content_type=media_type(form))
