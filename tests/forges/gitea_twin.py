"""The twin of Gitea and Forgejo: pull requests below `/api/v1`, which cannot be asked for by branch."""

from typing import Any

from twin import PROJECT, Pull, Refused, Request, Route, Twin

_R = f"/repos/{PROJECT}"


class GiteaTwin(Twin):
    """One repository of it."""

    prefix = "/api/v1"
    word_for_size = "limit"
    is_old = False  # before threads could be resolved

    def routes(self) -> tuple[Route, ...]:
        return (
            ("GET", _R, lambda _: {"default_branch": self.default_branch(), "id": 5}),
            ("GET", f"{_R}/pulls", self.list_pulls),
            ("POST", f"{_R}/pulls", self.create),
            ("GET", rf"{_R}/pulls/(\d+)", lambda request: self.shown(self.pull(request.parts[0]))),
            ("PATCH", rf"{_R}/pulls/(\d+)", self.change),
            ("GET", rf"{_R}/pulls/(\d+)/reviews", self.list_reviews),
            ("POST", rf"{_R}/pulls/(\d+)/reviews", self.reply),
            ("GET", rf"{_R}/pulls/(\d+)/reviews/(\d+)/comments", self.code_comments),
            ("POST", rf"{_R}/pulls/(\d+)/comments/(\d+)/resolve", self.resolve),
            ("GET", rf"{_R}/issues/(\d+)/comments", self.list_comments),
            ("POST", rf"{_R}/issues/(\d+)/comments", self.comment),
            ("GET", rf"{_R}/commits/(\w+)/statuses", self.statuses),
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

    def list_reviews(self, request: Request) -> Any:
        """Each comment on a line is a review of its own here, as if each was sent alone."""
        states = {"approved": "APPROVED", "requests-changes": "REQUEST_CHANGES", "comments": "COMMENT"}
        pull = self.pull(request.parts[0]).number
        whole = [(one.id, one.author, states[one.state], one.body, 0) for one in self.reviews if one.pull == pull]
        single = [
            (one.id, one.author, "COMMENT", "", 1) for talk in self.talks if talk.pull == pull for one in talk.said
        ]
        names = ("id", "user", "state", "body", "comments_count")
        shown = [dict(zip(names, one, strict=True)) for one in sorted(whole + single)]
        return self.page(request, [{**one, "user": {"login": one["user"]}} for one in shown])

    def code_comments(self, request: Request) -> Any:
        for talk in self.talks:
            for said in talk.said:
                if said.id == int(request.parts[1]):
                    place = {"path": talk.file, "position": talk.line or 0, "original_position": 0}
                    resolver = {"login": "me"} if talk.resolved and said is talk.said[0] else None
                    shown = {"id": said.id, "body": said.text, "user": {"login": said.author}, "resolver": resolver}
                    return [{**place, **shown}]
        return []

    def reply(self, request: Request) -> Any:
        (comment,) = request.fields["comments"]
        place = (comment["path"], comment["new_position"], comment["old_position"])
        for talk in self.talks:
            if talk.pull == int(request.parts[0]) and (talk.file, talk.line or 0, 0) == place:
                return {"id": self.add(talk.said, comment["body"]).id, "state": request.fields["event"]}
        raise Refused(422, {"message": "no such place"})

    def resolve(self, request: Request) -> Any:
        if self.is_old:
            raise Refused(404, {"message": "Not Found"})
        for talk in self.talks:
            if talk.said[0].id == int(request.parts[1]):
                talk.resolved = True
        return {}

    def list_comments(self, request: Request) -> Any:
        """All of them at once, as the real one does."""
        pull = self.pull(request.parts[0]).number
        return [{"id": one.id, "user": {"login": one.author}, "body": one.text} for n, one in self.below if n == pull]

    def comment(self, request: Request) -> Any:
        return {"id": self.add_below(request.parts[0], request.fields["body"]).id}

    def statuses(self, request: Request) -> Any:
        words = {"red": "failure", "green": "success", "pending": "pending"}
        shown = [
            {
                "id": one.id,
                "context": one.name,
                "status": words[one.state],
                "target_url": f"https://forge.example/{PROJECT}/actions/runs/{one.id}",
                "description": one.log.splitlines()[-1] if one.log else "",
            }
            for one in reversed(self.ran)
            if one.commit == request.parts[0]
        ]
        assert request.params["sort"] == "highestindex"
        return self.page(request, shown)

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
