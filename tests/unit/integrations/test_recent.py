"""The latest submissions of an adapter."""

from wove.integrations.recent import RecentSubmissions


def test_a_submission_is_known_by_its_run() -> None:
    recent = RecentSubmissions()
    recent.add("report-1", "handle")
    assert "report-1" in recent
    assert recent["report-1"] == "handle"
    assert "report-2" not in recent


def test_the_oldest_submissions_are_forgotten() -> None:
    recent = RecentSubmissions(most=2)
    for number in range(3):
        recent.add(f"report-{number}", number)
    assert [f"report-{number}" in recent for number in range(3)] == [False, True, True]
