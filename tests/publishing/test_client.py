"""Whatever fails on the way, a push is complete or not there at all."""

import json
import random
import time

import pytest

from tests.publishing.runs import PASSING, PERMANENT, ROUTES, holds, write_run
from tl_hub.errors import RunStopped
from tl_hub.publishing.client import Client, Patience


def faults() -> list[tuple[str, int | str, bool, int]]:
    """Route, what happens there, whether the work was done before, and how often; 323 in a seeded order."""
    found = [(route, what, False, 1) for route in ROUTES for what in PASSING]
    writes = ("create", "put", "commit", "branch", "tag", "pull request", "open")
    found += [(route, what, True, 1) for route in writes for what in (429, 503, "drop")]
    found += [(route, what, False, 999) for route in ROUTES for what in (503, "drop")]
    found += [("commit", what, True, 999) for what in (504, "drop")]
    found += [(route, what, False, 1) for route in ROUTES for what in PERMANENT]
    return random.Random(0).sample(found, len(found))


def test_all_routes_fail_in_all_ways():
    assert len(faults()) == 323


@pytest.mark.parametrize("asked", ROUTES)
def test_after_any_fault_the_repository_is_untouched_or_complete(hub, push, tmp_path, asked):
    if ("model", "alice/faults") not in hub.repos:
        push(write_run(tmp_path / "run"), "alice/faults")
    for number, (route, what, after, count) in enumerate(faults(), start=1):
        if route != asked:
            continue
        pattern, options = ROUTES[route]
        options = dict(options)
        name = f"alice/new-{number}" if options.pop("new", False) else "alice/faults"
        options |= {key: f"{options[key]}-{number}" for key in ("revision", "tag") if key in options}
        folder = write_run(tmp_path / "run", number / 4)
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(record | {"name": f"run {number}"}))
        untouched = {ref: commit for ref, commit in hub.model("alice/faults").refs.items()}
        hub.fail(pattern, what, after=after, count=count)
        answer = push(folder, name, **options)
        case = f"{number}: {route} {what} {'after' if after else 'before'} {count} times: {answer}"
        assert hub.faults[0].count < count, f"the fault did not come about, {case}"
        hub.faults.clear()
        branch = "refs/pr/" if "create_pr" in options else f"refs/heads/{options.get('revision', 'main')}"

        def pushed(name=name, branch=branch, untouched=untouched) -> list[str]:
            refs = hub.model(name).refs if ("model", name) in hub.repos else {}
            return [refs[ref] for ref in refs if ref.startswith(branch) and untouched.get(ref) != refs[ref]]

        transient = what in PASSING and (count == 1 or after)  # a look at the branch finds what was done
        transient |= route == "head" and what in (403, 404, 409, 413, 422)  # the client tells no status of these
        assert ("error" in answer) == (not transient), case
        if "error" in answer:
            assert answer["kind"] == ("UserError" if what in PERMANENT else "RunStopped"), case
            assert "\n" not in answer["error"], case
            for commit in pushed():
                repo = hub.model(name)
                main = untouched.get("refs/heads/main")
                nothing = commit == main or commit == repo.history("main")[-1].id
                assert nothing or holds(repo, folder, commit), case
            answer = push(folder, name, **options)
            assert "error" not in answer, f"the same command again, {case}: {answer}"
        (commit,) = pushed()
        repo = hub.model(name)
        assert holds(repo, folder, commit) and answer["revision"] == commit, case
        parent = repo.commits[commit].parent
        expected = repo.history("main")[-1].id if name != "alice/faults" else untouched["refs/heads/main"]
        assert parent == expected, f"one commit and no more, {case}"
        if "tag" in options:
            assert repo.refs[f"refs/tags/{options['tag']}"] == commit, case
        if "create_pr" in options:
            repo.discussions[-1]["status"] = "closed"


def test_a_wait_that_the_hub_asks_for_is_kept_and_one_too_long_is_told(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    hub.fail("POST .*/commit/", 429, retry_after="7")
    assert any("the Hub answered 429; again in 7 s" in line for line in push(folder, "alice/wait")["said"])
    hub.fail("GET /api/whoami", 429, retry_after="3600")
    assert "asks to wait for 60 min" in push(folder, "alice/wait")["error"]


def test_waits_are_doubled_up_to_a_minute_and_end_with_the_last_attempt(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    asked = Client("alice/x", Patience(attempts=9, wait=2.0), say=lambda text: None)
    for attempt in range(1, 9):
        asked.pause("ask", ConnectionError("gone"), attempt)
    for found, least in zip(waited, [2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert least <= found <= 1.5 * least
    with pytest.raises(RunStopped, match=r"ask: gone \(attempt 9\); nothing is lost"):
        asked.pause("ask", ConnectionError("gone"), 9)
    assert len(waited) == 8


def test_a_server_that_says_nothing_is_given_up_and_asked_again(hub, push, tmp_path):
    hub.fail("POST .*/commit/", "slow", seconds=2.0)
    answer = push(write_run(tmp_path / "run"), "alice/slow", timeout=0.5)
    assert holds(hub.model("alice/slow"), tmp_path / "run")
    assert "error" not in answer and len(hub.model("alice/slow").history("main")) == 2
    time.sleep(2)  # the first request now comes to its end, and must not make a second commit
    assert len(hub.model("alice/slow").history("main")) == 2


def test_what_is_no_answer_of_the_hub_is_asked_again_and_what_it_answers_is_told(hub, push, tmp_path):
    """A page of a gateway says nothing of the card; the Hub's own refusals are passed on in full."""
    folder = write_run(tmp_path / "run")
    hub.fail("POST /api/validate-yaml", 504, html=True)
    assert "error" not in push(folder, "alice/answers") and holds(hub.model("alice/answers"), folder)
    for route in ("POST .*/commit/", "POST .*/preupload/"):
        hub.fail(route, 400)
        answer = push(write_run(folder, 1), "alice/answers")
        assert answer["kind"] == "UserError" and "the Hub refuses it (400: " in answer["error"], answer
        assert "injected" in answer["error"] and "\n" not in answer["error"]
    repo = hub.model("alice/answers")
    files = dict(repo.at("main").files)
    readme = files["README.md"].content.decode().replace("---\n", "---\nthumbnail: 5\nwidget: none\n", 1)
    repo.commit("refs/heads/main", files | {"README.md": type(files["README.md"])(readme.encode())}, "edit", "", "a")
    refused = push(folder, "alice/answers")["error"]
    assert refused.endswith(
        "would refuse the card of alice/answers: widget: 'none' is not a list; thumbnail: 5 is not a text"
    )
    repo.commit("refs/heads/main", files, "back", "", "a")
    rule = json.dumps({"errors": [{"message": '"thumbnail" must be a string'}, {"message": "and a new rule"}]})
    hub.fail("POST /api/validate-yaml", 400, body=rule.encode())
    refused = push(write_run(folder, 2), "alice/answers")["error"]
    assert 'Invalid metadata in README.md. - "thumbnail" must be a string - and a new rule' in refused
