"""The twin of GitLab: merge requests below `/api/v4`."""

from typing import Any

from twin import PROJECT, Pull, Request, Route, Twin

_P = f"/projects/{PROJECT.replace('/', '%2F')}"


class GitLabTwin(Twin):
    """One project of it."""

    prefix = "/api/v4"

    def routes(self) -> tuple[Route, ...]:
        return (
            ("GET", _P, lambda _: {"default_branch": self.default_branch(), "id": 7}),
            ("GET", f"{_P}/merge_requests", self.list_requests),
            ("POST", f"{_P}/merge_requests", self.create),
            ("GET", rf"{_P}/merge_requests/(\d+)", lambda request: self.shown(self.pull(request.parts[0]))),
            ("PUT", rf"{_P}/merge_requests/(\d+)", self.change),
        )

    def list_requests(self, request: Request) -> Any:
        branch = request.params.get("source_branch")
        found = [pull for pull in reversed(self.pulls) if branch in (None, pull.head)]
        return self.page(request, [self.shown(pull) for pull in found])

    def create(self, request: Request) -> Any:
        title = request.fields["title"]
        pull = self.open_pull(
            title=title,
            body=request.fields["description"],
            head=request.fields["source_branch"],
            base=request.fields["target_branch"],
            draft=title.startswith("Draft:"),
            exists=409,
            lacks=400,
        )
        return self.shown(pull)

    def change(self, request: Request) -> Any:
        pull = self.pull(request.parts[0])
        pull.title = request.fields.get("title", pull.title)
        pull.body = request.fields.get("description", pull.body)
        pull.draft = pull.title.startswith("Draft:")
        return self.shown(pull)

    def shown(self, pull: Pull) -> dict[str, Any]:
        return {
            "id": 9000 + pull.number,
            "iid": pull.number,
            "web_url": f"https://forge.example/{PROJECT}/-/merge_requests/{pull.number}",
            "state": "opened" if pull.state == "open" else pull.state,
            "draft": pull.draft,
            "title": pull.title,
            "description": pull.body or None,
            "source_branch": pull.head,
            "target_branch": pull.base,
            "source_project_id": 8 if pull.foreign else 7,
            "target_project_id": 7,
            "sha": self.commit(pull.head) or None,
        }
