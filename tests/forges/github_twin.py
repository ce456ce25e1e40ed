"""The twin of GitHub: REST below `/api/v3` as an enterprise server has it, at the root for `gh`, and GraphQL."""

from typing import Any

from twin import PROJECT, Pull, Refused, Request, Route, Said, Text, Twin

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
            ("GET", rf"{_R}/pulls/(\d+)/reviews", self.list_reviews),
            ("POST", rf"{_R}/pulls/(\d+)/comments/(\d+)/replies", self.reply),
            ("GET", rf"{_R}/issues/(\d+)/comments", self.list_comments),
            ("POST", rf"{_R}/issues/(\d+)/comments", self.comment),
            ("GET", rf"{_R}/commits/(\w+)/check-runs", self.check_runs),
            ("GET", rf"{_R}/commits/(\w+)/status", self.statuses),
            ("GET", rf"{_R}/actions/jobs/(\d+)/logs", self.log),
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
        if "resolveReviewThread" in text:
            self.find(self.talks, variables["id"].removeprefix("PRRT_")).resolved = True
            return {"data": {"resolveReviewThread": {"clientMutationId": None}}}
        if "reviewThreads" in text:
            return self.threads(variables)
        raise Refused(400, {"message": "Problems parsing JSON"})

    def threads(self, variables: dict[str, Any]) -> Any:
        if not any(pull.number == variables["number"] for pull in self.pulls):
            error = {"type": "NOT_FOUND", "message": "Could not resolve to a PullRequest"}
            return {"data": {"repository": {"pullRequest": None}}, "errors": [error]}
        talks = [talk for talk in self.talks if talk.pull == variables["number"]]
        begin = int(variables["after"] or 0)
        end = begin + self.max_page
        page = {"hasNextPage": end < len(talks), "endCursor": str(end)}
        nodes = [
            {
                "id": f"PRRT_{talk.id}",
                "isResolved": talk.resolved,
                "path": talk.file,
                "line": talk.line,
                "first": {"nodes": [{"databaseId": talk.said[0].id}]},
                "newest": {"nodes": [self.said(one) for one in talk.said[-50:]]},
            }
            for talk in talks[begin:end]
        ]
        return {"data": {"repository": {"pullRequest": {"reviewThreads": {"pageInfo": page, "nodes": nodes}}}}}

    def said(self, said: Said) -> dict[str, Any]:
        author = {"login": said.author} if said.author != "ghost" else None
        return {"databaseId": said.id, "body": said.text, "author": author}

    def list_reviews(self, request: Request) -> Any:
        states = {"approved": "APPROVED", "requests-changes": "CHANGES_REQUESTED", "comments": "COMMENTED"}
        pull = self.pull(request.parts[0])
        shown = [
            {"id": one.id, "state": states[one.state], "user": {"login": one.author}, "body": one.body}
            for one in self.reviews
            if one.pull == pull.number
        ]
        return self.page(request, shown)

    def reply(self, request: Request) -> Any:
        for talk in self.talks:
            if talk.said[0].id == int(request.parts[1]):  # only the first can be answered
                return {"id": self.add(talk.said, request.fields["body"]).id, "body": request.fields["body"]}
        raise Refused(404, {"message": "Not Found"})

    def list_comments(self, request: Request) -> Any:
        pull = self.pull(request.parts[0])
        shown = [
            {"id": said.id, "user": {"login": said.author}, "body": said.text}
            for number, said in self.below
            if number == pull.number
        ]
        return self.page(request, shown)

    def comment(self, request: Request) -> Any:
        return {"id": self.add_below(request.parts[0], request.fields["body"]).id}

    def check_runs(self, request: Request) -> Any:
        runs = [
            {
                "id": one.id,
                "name": one.name,
                "status": "in_progress" if one.state == "pending" else "completed",
                "conclusion": {"red": "failure", "green": "success"}.get(one.state),
                "html_url": f"https://forge.example/{PROJECT}/runs/{one.id}",
                "output": {"summary": None, "text": None},
            }
            for one in self.ran
            if one.commit == request.parts[0]
        ]
        here, headers = self.page(request, runs)
        return {"total_count": len(runs), "check_runs": here}, headers

    def statuses(self, request: Request) -> Any:  # noqa: ARG002 - none has any: checks are runs here
        return {"state": "pending", "statuses": []}

    def log(self, request: Request) -> Any:
        ran = self.find(self.ran, request.parts[0])
        if not ran.log:
            raise Refused(404, {"message": "Not Found"})
        return Text(ran.log)

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
