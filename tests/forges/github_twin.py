"""The twin of GitHub: REST below `/api/v3` as an enterprise server has it, at the root for `gh`, and GraphQL."""

from typing import Any

from twin import PROJECT, Pull, Refused, Request, Route, Twin

_R = f"/repos/{PROJECT}"


class GitHubTwin(Twin):
    """One repository of it."""

    prefix = "/api/v3"

    def routes(self) -> tuple[Route, ...]:
        return (
            ("GET", _R, lambda _: {"default_branch": self.default_branch(), "id": 1}),
            ("GET", f"{_R}/pulls", self.list_pulls),
            ("POST", f"{_R}/pulls", self.create),
            ("GET", rf"{_R}/pulls/(\d+)", lambda request: self.shown(self.pull(request.parts[0]))),
            ("PATCH", rf"{_R}/pulls/(\d+)", self.change),
            ("POST", "(?:/api)?/graphql", self.graphql),
        )

    def list_pulls(self, request: Request) -> Any:
        owner, _, branch = request.params.get("head", "").partition(":")
        states = {"open": ("open",), "closed": ("closed", "merged")}.get(request.params.get("state", "open"))
        found = [
            pull
            for pull in reversed(self.pulls)
            if (not branch or (pull.head == branch and (owner == "acme") is not pull.foreign))
            and (states is None or pull.state in states)
        ]
        return self.page(request, [self.shown(pull) for pull in found])

    def create(self, request: Request) -> Any:
        fields = {name: request.fields[name] for name in ("title", "body", "head", "base", "draft")}
        return self.shown(self.open_pull(**fields, exists=422, lacks=422))

    def change(self, request: Request) -> Any:
        pull = self.pull(request.parts[0])
        for name in {"title", "body", "base"} & request.fields.keys():  # `draft` is passed over, as by the real one
            setattr(pull, name, request.fields[name])
        return self.shown(pull)

    def graphql(self, request: Request) -> Any:
        text, variables = request.fields["query"], request.fields["variables"]
        for mutation, draft in (("convertPullRequestToDraft", True), ("markPullRequestReadyForReview", False)):
            if mutation in text:
                self.pull(variables["id"].removeprefix("PR_")).draft = draft
                return {"data": {mutation: {"clientMutationId": None}}}
        raise Refused(400, {"message": "Problems parsing JSON"})

    def shown(self, pull: Pull) -> dict[str, Any]:
        return {
            "number": pull.number,
            "node_id": f"PR_{pull.number}",
            "html_url": f"https://forge.example/{PROJECT}/pull/{pull.number}",
            "state": "open" if pull.state == "open" else "closed",
            "merged_at": "2026-01-01T00:00:00Z" if pull.state == "merged" else None,
            "draft": pull.draft,
            "title": pull.title,
            "body": pull.body or None,
            "head": {"ref": pull.head, "sha": self.commit(pull.head), "label": f"acme:{pull.head}"},
            "base": {"ref": pull.base, "sha": self.commit(pull.base)},
        }
