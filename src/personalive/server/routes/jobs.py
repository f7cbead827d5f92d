"""Routes of jobs: send a portrait and a clip, follow the progress, fetch the video (docs/protocol.md)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import FileResponse

from personalive.live.errors import RefusedError
from personalive.server.dependencies import AppJobs, AppSessions, OwnJob, require_token
from personalive.server.jobs import check_open
from personalive.server.schemas import JobAnswer, JobOptions, OpenedJob
from personalive.server.uploads import binary_body, receive

router = APIRouter(prefix="/api/jobs", tags=["Jobs"])


@router.post("", status_code=201, dependencies=[Depends(require_token)])
async def open_job(jobs: AppJobs, options: Annotated[JobOptions, Body(default_factory=dict)]) -> OpenedJob:
    """Open a job with options of ``personalive.animate``."""
    job = jobs.open(options)
    return OpenedJob(id=job.id, key=job.key)


@router.put("/{ident}/portrait", status_code=204, openapi_extra=binary_body("image/*"))
async def put_portrait(request: Request, sessions: AppSessions, job: OwnJob) -> None:
    """Upload the portrait."""
    check_open(job)
    job.portrait = await receive(request, job.folder, sessions.server.portrait_bytes, "portrait")


@router.put("/{ident}/clip", status_code=204, openapi_extra=binary_body("video/*", "application/octet-stream"))
async def put_clip(request: Request, sessions: AppSessions, job: OwnJob) -> None:
    """Upload the driving clip, or a motion file."""
    check_open(job)
    job.clip = await receive(request, job.folder, sessions.server.clip_bytes, "clip")


@router.post("/{ident}/start", status_code=202)
async def start_job(jobs: AppJobs, job: OwnJob) -> JobAnswer:
    """Queue the job."""
    jobs.start(job)
    return JobAnswer(**job.to_dict())


@router.get("/{ident}")
async def job_state(job: OwnJob) -> JobAnswer:
    """Return state and progress."""
    return JobAnswer(**job.to_dict())


@router.get("/{ident}/result", response_class=FileResponse, responses={200: {"content": {"video/mp4": {}}}})
async def job_result(job: OwnJob) -> FileResponse:
    """Return the video, an MP4."""
    if job.state != "done":
        raise RefusedError("not_found", f"no video yet: the job is {job.state}")
    return FileResponse(job.video, media_type="video/mp4", filename="video.mp4")


@router.delete("/{ident}", status_code=204)
async def delete_job(jobs: AppJobs, job: OwnJob) -> None:
    """Cancel the job and remove its files."""
    jobs.close(job)
