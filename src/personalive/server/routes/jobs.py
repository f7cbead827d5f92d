"""Films over HTTP: send a portrait and a clip, watch the progress, take the result (docs/protocol.md)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from personalive.live.errors import RefusedError
from personalive.server.dependencies import RequestAuth, Sessions, the_doors
from personalive.server.jobs import Job, JobQueue
from personalive.server.uploads import json_object, receive

routes = APIRouter(prefix="/api/jobs")


class OpenedJob(BaseModel):
    """A new job."""

    id: str
    key: str


def the_jobs(connection: HTTPConnection) -> JobQueue:
    """Of the app that serves the request."""
    return connection.app.state.jobs


def own_job(connection: HTTPConnection, ident: str) -> Job:
    """The job of the address, for the holder of its key.

    Raises:
        RefusedError: no such job, or another key.
    """
    job = the_jobs(connection).find(ident)
    the_doors(connection).check_key(connection, job)
    return job


TheJobs = Annotated[JobQueue, Depends(the_jobs)]
OwnJob = Annotated[Job, Depends(own_job)]


@routes.post("", status_code=201)
async def open_job(request: Request, doors: RequestAuth, jobs: TheJobs) -> OpenedJob:
    """A new film; the body has its options, as ``personalive.animate`` takes them."""
    doors.check_token(request)
    job = jobs.open(await json_object(request))
    return OpenedJob(id=job.id, key=job.key)


@routes.put("/{ident}/portrait", status_code=204)
async def put_portrait(request: Request, desk: Sessions, job: OwnJob) -> None:
    """The body is the portrait."""
    _check_open(job)
    job.portrait = await receive(request, job.folder, desk.server.portrait_bytes, "portrait")


@routes.put("/{ident}/clip", status_code=204)
async def put_clip(request: Request, desk: Sessions, job: OwnJob) -> None:
    """The body is the clip that drives, or a motion file."""
    _check_open(job)
    job.clip = await receive(request, job.folder, desk.server.clip_bytes, "clip")


@routes.post("/{ident}/start", status_code=202)
async def start_job(jobs: TheJobs, job: OwnJob) -> dict[str, Any]:
    """Begin, when its turn comes."""
    jobs.begin(job)
    return job.to_dict()


@routes.get("/{ident}")
async def job_state(job: OwnJob) -> dict[str, Any]:
    """How far it is."""
    return job.to_dict()


@routes.get("/{ident}/result")
async def job_result(job: OwnJob) -> FileResponse:
    """The film, an MP4."""
    if job.state != "done":
        raise RefusedError("not_found", f"no film yet: the job is {job.state}")
    return FileResponse(job.film, media_type="video/mp4", filename="film.mp4")


@routes.delete("/{ident}", status_code=204)
async def delete_job(jobs: TheJobs, job: OwnJob) -> None:
    """Cancel it, and remove all that belongs to it."""
    jobs.close(job)


def _check_open(job: Job) -> None:
    if job.state != "open":
        raise RefusedError("bad_request", f"the job is {job.state}: open another one")
