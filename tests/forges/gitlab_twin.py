"""The twin of GitLab: merge requests below `/api/v4`."""

from typing import Any

from twin import PROJECT, TOKEN, Pull, Refused, Request, Route, Said, Talk, Text, Twin

_P = f"/projects/{PROJECT.replace('/', '%2F')}"


class GitLabTwin(Twin):
    """One project of it."""

    prefix = "/api/v4"
    logins = (("Authorization", f"Bearer {TOKEN}"), ("Private-Token", TOKEN))

    def routes(self) -> tuple[Route, ...]:
        return (
            ("GET", _P, lambda _: {"default_branch": self.default_branch(), "id": 7}),
            ("GET", f"{_P}/merge_requests", self.list_requests),
            ("POST", f"{_P}/merge_requests", self.create),
            ("GET", rf"{_P}/merge_requests/(\d+)", lambda request: self.shown(self.pull(request.parts[0]))),
            ("PUT", rf"{_P}/merge_requests/(\d+)", self.change),
            ("GET", rf"{_P}/merge_requests/(\d+)/discussions", self.discussions),
            ("POST", rf"{_P}/merge_requests/(\d+)/discussions/(\d+)/notes", self.reply),
            ("PUT", rf"{_P}/merge_requests/(\d+)/discussions/(\d+)", self.resolve),
            ("GET", rf"{_P}/repository/commits/(\w+)/statuses", self.statuses),
            ("GET", rf"{_P}/jobs/(\d+)/trace", self.trace),
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

    def discussions(self, request: Request) -> Any:
        pull = self.pull(request.parts[0])
        threads = [
            {"id": str(talk.id), "notes": [self.note(one, talk) for one in talk.said]}
            for talk in self.talks
            if talk.pull == pull.number
        ]
        plain = [
            {"id": f"c{said.id}", "notes": [self.note(said, None)]}
            for number, said in self.below
            if number == pull.number
        ]
        return self.page(request, [*plain, *threads])

    def note(self, said: Said, talk: Talk | None) -> dict[str, Any]:
        place = {"new_path": talk.file, "new_line": talk.line} if talk else None
        return {
            "id": said.id,
            "body": said.text,
            "author": {"username": said.author},
            "resolvable": talk is not None,
            "resolved": talk is not None and talk.resolved,
            "position": place,
        }

    def reply(self, request: Request) -> Any:
        talk = self.find(self.talks, request.parts[1])
        return self.note(self.add(talk.said, request.fields["body"]), talk)

    def resolve(self, request: Request) -> Any:
        self.find(self.talks, request.parts[1]).resolved = request.fields["resolved"]
        return {}

    def statuses(self, request: Request) -> Any:
        words = {"red": "failed", "green": "success", "pending": "running"}
        shown = [
            {
                "id": one.id,
                "name": one.name,
                "status": words[one.state],
                "target_url": f"https://forge.example/{PROJECT}/-/jobs/{one.id}",
                "allow_failure": one.name.startswith("optional"),
            }
            for one in self.ran
            if one.commit == request.parts[0]
        ]
        return self.page(request, shown)

    def trace(self, request: Request) -> Any:
        ran = self.find(self.ran, request.parts[0])
        if not ran.log:
            raise Refused(404, {"message": "404 Not Found"})
        return Text(ran.log)

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
