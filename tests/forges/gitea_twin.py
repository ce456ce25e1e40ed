"""The twin of Gitea and Forgejo: pull requests below `/api/v1`, which cannot be asked for by branch."""

from typing import Any

from twin import PROJECT, TOKEN, Pull, Request, Route, Twin

_R = f"/repos/{PROJECT}"


class GiteaTwin(Twin):
    """One repository of it."""

    prefix = "/api/v1"
    authorization = f"token {TOKEN}"
    word_for_size = "limit"

    def routes(self) -> tuple[Route, ...]:
        return (
            ("GET", _R, lambda _: {"default_branch": self.default_branch(), "id": 5}),
            ("GET", f"{_R}/pulls", self.list_pulls),
            ("POST", f"{_R}/pulls", self.create),
            ("GET", rf"{_R}/pulls/(\d+)", lambda request: self.shown(self.pull(request.parts[0]))),
            ("PATCH", rf"{_R}/pulls/(\d+)", self.change),
        )

    def list_pulls(self, request: Request) -> Any:
        is_open = request.params.get("state", "open") == "open"
        found = [pull for pull in reversed(self.pulls) if (pull.state == "open") is is_open]
        return self.page(request, [self.shown(pull) for pull in found])

    def create(self, request: Request) -> Any:
        fields = {name: request.fields[name] for name in ("title", "body", "head", "base")}
        draft = fields["title"].startswith("WIP:")
        return self.shown(self.open_pull(**fields, draft=draft, exists=409, lacks=404))

    def change(self, request: Request) -> Any:
        pull = self.pull(request.parts[0])
        pull.title, pull.body = request.fields.get("title", pull.title), request.fields.get("body", pull.body)
        pull.draft = pull.title.startswith("WIP:")
        return self.shown(pull)

    def shown(self, pull: Pull) -> dict[str, Any]:
        return {
            "number": pull.number,
            "html_url": f"https://forge.example/{PROJECT}/pulls/{pull.number}",
            "state": "open" if pull.state == "open" else "closed",
            "merged": pull.state == "merged",
            "title": pull.title,
            "body": pull.body,
            "head": {"ref": pull.head, "sha": self.commit(pull.head), "repo_id": 6 if pull.foreign else 5},
            "base": {"ref": pull.base, "sha": self.commit(pull.base), "repo_id": 5},
        }
