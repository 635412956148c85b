"""The demo keeps count fairly."""

from reaper.demo.score import News, Score
from reaper.policy.plan import Result


def test_a_try_that_began_before_the_first_termination_is_not_one_after_it() -> None:
    told: list[News] = []
    score = Score(told.append)
    began_before = score.trying()
    score.tally.results["leaked-sessions", Result.TERMINATED] += 1

    began_before("FATAL: sorry, too many clients already")
    score.trying()(None)

    assert (score.before.tries, score.before.refused) == (1, 1)
    assert (score.after.tries, score.after.refused) == (1, 0)
    assert [news.text for news in told] == [
        "customer: FATAL: sorry, too many clients already",
        "customer gets in, after 1 refusals",
    ]
